"""Names of TPUs: what they have, and the sentences for those that cannot be."""

import pytest

from omni_smola.ahead import topology
from omni_smola.errors import UserError


@pytest.mark.parametrize(
    ("name", "chips", "gib"),
    [("v4:2x2x1", 4, 32), ("v5e:16x16", 256, 16), ("v5p:8x8x16", 1024, 95), ("v6e:2x4", 8, 32)],
)
def test_a_name_says_how_many_chips_of_what(name, chips, gib):
    found = topology.parse(name)
    assert (found.name, found.chips, found.chip.hbm) == (name, chips, gib * 2**30)


def test_other_names_of_a_generation():
    assert topology.parse("trillium:2x2").name == "v6e:2x2"
    assert topology.parse("v5litepod:4x4").name == "v5e:4x4"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (None, r"add --topology=NAME, such as one of v5e:4x4"),
        ("", r"add --topology=NAME"),
        ("v9:4x4", r"There is no topology 'v9:4x4'.*v4, v5e, v5p, v6e.*such as v5e:4x4"),
        ("v5:4x4", r"There is no topology 'v5:4x4'.*did you mean v5"),
        ("v5e", r"There is no topology 'v5e'"),
        ("v5e:4*4", r"There is no topology"),
        ("v5e:32x32", r"v5e:32x32 cannot be: a slice of v5e has 2 axes and at most 16x16"),
        ("v5e:4x4x4", r"has 2 axes"),
        ("v5p:4x4", r"v5p has 3 axes and at most 16x16x24"),
        ("v6e:0x4", r"cannot be"),
    ],
)
def test_what_cannot_be_is_a_sentence(name, sentence):
    with pytest.raises(UserError, match=sentence):
        topology.parse(name)


def test_a_missing_compiler_is_a_sentence(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"libtpu.*not installed.*omni_smola\[compile\].*no TPU"):
        topology.require_compiler()
