"""A workdir that will not do is refused at the door."""

import pytest

from omni_smola.errors import UserError
from omni_smola.training import distributed
from omni_smola.training.faults.workdir import ensure_workdir


def test_a_workdir_is_made_and_left_clean(tmp_path):
    path = ensure_workdir(str(tmp_path / "a" / "b"))
    assert path == str(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_workdir_that_cannot_be_written_is_refused(tmp_path):
    """Below a regular file not even root can write; permissions would not stop it."""
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match=rf"workdir {path} cannot be written.*--workdir=PATH"):
            ensure_workdir(str(path))
    assert (tmp_path / "file").read_text() == "mine"


def test_an_address_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"gs://mine/run is an address.*gcsfuse.*--workdir=PATH"):
        ensure_workdir("gs://mine/run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_host_does_not_see_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "gather_bytes", lambda own: [own, b"", own, b""])
    with pytest.raises(UserError, match=rf"workdir {tmp_path} of host 0 is not that of hosts 1, 3"):
        ensure_workdir(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_host_cannot_write_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "failure", lambda why: "no space, on host 1")
    with pytest.raises(UserError, match=r"cannot be written to \(no space, on host 1\)"):
        ensure_workdir(str(tmp_path))
