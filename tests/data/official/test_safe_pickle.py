"""A pickle may hold data and nothing else."""

import contextlib
import copyreg
import os
import pickle
import struct
import tracemalloc

import pytest

from omni_smola.data.builders.official import safe_pickle
from omni_smola.errors import UserError

DATA = [
    {
        "ref_id": 3,
        "long": 1 << 70,
        "sentences": [
            {"sent": "the café", "tokens": ["the", "cafe"], "weights": (0.5, None, True)}
        ],
    }
]


class Shell:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def load(tmp_path):
    def read(content: bytes):
        path = tmp_path / "refs(unc).p"
        path.write_bytes(content)
        return safe_pickle.load(path)

    return read


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read_in_every_protocol(load, protocol):
    assert load(pickle.dumps(DATA, protocol)) == DATA


def test_python_2_strings_and_numbers_are_read(load):
    # str (protocols 0 and 1), unicode and long, as Python 2 writes them.
    text = b"(lp0\nS'caf\\xe9'\np1\naVcaf\\u00e9\np2\naL5L\nag1\naI01\na."
    assert load(text) == ["café", "café", 5, "café", True]
    assert load(b"]q\x00(U\x04caf\xe9q\x01T\x02\x00\x00\x00abe.") == ["café", "ab"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_refused_and_not_carried_out(load, tmp_path, protocol):
    witness = tmp_path / "carried-out"
    content = pickle.dumps([*DATA, Shell(f"touch {witness}")], protocol)
    with pytest.raises(UserError, match=r"asks for (posix|nt)\.system, which is code and no data"):
        load(content)
    assert not witness.exists()
    pickle.loads(content)  # noqa: S301 - it would have been
    assert witness.exists()


def test_other_ways_to_name_code_are_refused(load, tmp_path):
    witness = tmp_path / "carried-out"
    command = f"touch {witness}".encode()
    refused = {
        "instance": b"(S'" + command + b"'\nios\nsystem\n.",
        "object": b"(cos\nsystem\nS'" + command + b"'\no.",
        "class": b"c__builtin__\nset\n.",
        "persistent": b"Psecret\n.",
    }
    for content in refused.values():
        with pytest.raises(UserError, match="which is code and no data"):
            load(content)
    copyreg.add_extension("os", "system", 0x70)
    try:
        with pytest.raises(UserError, match=r"asks for os\.system"):
            load(b"\x80\x02\x82\x70X" + bytes([len(command), 0, 0, 0]) + command + b"\x85R.")
    finally:
        copyreg.remove_extension("os", "system", 0x70)
    assert not witness.exists()


def test_plain_values_cannot_be_called_or_filled(load):
    for content in (b"S'a'\n(tR.", b"(dS'__class__'\n(db."):
        with pytest.raises(UserError, match="is not a complete pickle"):
            load(content)


@pytest.mark.parametrize(
    "content", [b"\x80\x02]r" + struct.pack("<I", 1 << 26) + b".",
                b"\x80\x05\x96" + struct.pack("<Q", 1 << 28) + b"."]
)  # fmt: skip
def test_a_few_bytes_take_little_memory(load, content):
    """The number of a value, and a length, for which a gigabyte or a quarter were set aside."""
    tracemalloc.start()
    try:
        with contextlib.suppress(UserError):
            assert load(content) == []
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_damaged_file_is_told(load, tmp_path):
    whole = pickle.dumps(DATA, 2)
    for content in (b"", whole[:-5], b"hello\n", whole.replace(b"}", b"\xff")):
        with pytest.raises(UserError, match=r"refs\(unc\)\.p is not a complete pickle .*again"):
            load(content)
    with pytest.raises(UserError, match=r"none.p cannot be read"):
        safe_pickle.load(tmp_path / "none.p")
