"""The reference of config fields: complete, and every field says what it is."""

import runpy

import ml_collections

from omni_smola import config as configs

from . import pages

REFERENCE = runpy.run_path(str(pages.ROOT / "docs/config_reference.py"))

SOURCE = '''
def defaults():
    """All fields."""
    config = ml_collections.ConfigDict()
    config.steps = 600  # of the run
    config.bare = 1

    # Of the model:
    # a group of two.
    config.model = ml_collections.ConfigDict()
    # Above.
    config.model.size = (
        3  # and beside | it
    )
    text = "# no comment"
    config.model.name = "a # b"
    return config
'''


def paths(config: ml_collections.ConfigDict, prefix: str = "") -> list[str]:
    """All fields and groups of fields of a config."""
    found = []
    for name, value in config.items():
        found.append(f"{prefix}{name}")
        if isinstance(value, ml_collections.ConfigDict):
            found += paths(value, f"{prefix}{name}.")
    return found


def test_comments_belong_to_the_field_below_or_beside_them():
    found = {field.name: (field.default, field.comment) for field in REFERENCE["fields"](SOURCE)}
    assert found == {
        "steps": ("600", "of the run"),
        "bare": ("1", ""),
        "model": (None, "Of the model: a group of two."),
        "model.size": ("3", "Above. and beside | it"),
        "model.name": ("'a # b'", ""),
    }


def test_the_page_is_made_of_tables():
    page = REFERENCE["render"](SOURCE)
    assert "| `steps` | `600` | of the run |" in page
    assert "## config.model\n\nOf the model: a group of two.\n\n| field" in page
    assert r"| `model.size` | `3` | Above. and beside \| it |" in page


def test_the_reference_has_every_field():
    fields = REFERENCE["fields"](REFERENCE["source"]())
    assert sorted(field.name for field in fields) == sorted(paths(configs.defaults()))


def test_every_field_says_what_it_is():
    fields = REFERENCE["fields"](REFERENCE["source"]())
    bare = [field.name for field in fields if field.default is not None and not field.comment]
    assert not bare, f"fields without a comment in `defaults`: {', '.join(bare)}"


def test_the_page_has_the_marker_that_the_fields_replace():
    page = (pages.ROOT / "docs" / REFERENCE["PAGE"]).read_text()
    assert page.count(REFERENCE["MARKER"]) == 1
