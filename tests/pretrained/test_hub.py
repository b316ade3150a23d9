"""What config.backbone.init names; nothing is downloaded here."""

import builtins
import fnmatch

import pytest

from omni_smola.errors import UserError
from omni_smola.pretrained import hub

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """The calls of snapshot_download, which gives a folder with one file of weights."""
    calls = []
    (tmp_path / "model.safetensors").touch()

    def snapshot_download(repo, **options):
        calls.append((repo, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_local_paths(tmp_path, monkeypatch, downloads):
    assert hub.resolve(str(tmp_path)) == tmp_path
    assert hub.resolve(str(tmp_path / "model.safetensors")) == tmp_path / "model.safetensors"
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert hub.resolve(f"~/{tmp_path.name}") == tmp_path
    with pytest.raises(UserError, match=r"no checkpoint .*absent: .*hf://OWNER/REPO"):
        hub.resolve(str(tmp_path / "absent"))
    assert not downloads


@pytest.mark.parametrize(
    ("init", "repo", "revision"),
    [
        ("hf://google/t5gemma-2-270m-270m", "google/t5gemma-2-270m-270m", None),
        ("hf://a/b.c@refs/pr/3", "a/b.c", "refs/pr/3"),
    ],
)
def test_a_repository(tmp_path, downloads, init, repo, revision):
    assert hub.resolve(init) == tmp_path
    ((asked, options),) = downloads
    assert (asked, options["revision"]) == (repo, revision)

    def taken(name):
        allowed, ignored = options["allow_patterns"], options["ignore_patterns"]
        match = fnmatch.fnmatch
        return any(match(name, p) for p in allowed) and not any(match(name, p) for p in ignored)

    names = """config.json generation_config.json model.safetensors model.safetensors.index.json
        model-00001-of-00002.safetensors tokenizer.json tokenizer_config.json spiece.model
        special_tokens_map.json tokenizer.model vocab.txt chat_template.jinja""".split()
    assert [name for name in names if not taken(name)] == []
    names = """pytorch_model.bin model.pt flax_model.msgpack tf_model.h5 original/params.json
        original/consolidated.00.pth consolidated.safetensors onnx/model.onnx modeling.py
        README.md paligemma.npz""".split()
    assert [name for name in names if taken(name)] == []


@pytest.mark.parametrize("init", ["hf://", "hf://t5", "hf://a/b/c", "hf://a/b@", "hf://a b/c"])
def test_a_name_that_is_no_repositorys(init, downloads):
    with pytest.raises(UserError, match="a repository is named hf://OWNER/REPO"):
        hub.resolve(init)
    assert not downloads


def test_a_repository_of_pickles(tmp_path, downloads):
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="hf://a/b has no safetensors files, and pickles are not"):
        hub.resolve("hf://a/b")


def test_a_repository_that_cannot_be_had(monkeypatch):
    def fail(repo, **options):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=r"cannot be downloaded \(LocalEntryNotFoundError: no net"):
        hub.resolve("hf://a/b")


def test_without_the_package(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **options):
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="not installed: pip install huggingface_hub, or download"):
        hub.resolve("hf://a/b")
