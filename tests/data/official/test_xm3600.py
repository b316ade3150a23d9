"""XM3600: one example a photo and language."""

import json

import pytest

from omni_smola.data.builders.xm3600 import LANGUAGES


def line(photo, **changed):
    captions = {
        language: {
            "caption": [f"{language}-one.", f"{language}-two."],
            "caption/tokenized": [f"{language} - one .", f"{language} - two ."],
            "caption/tokenized/lowercase": [f"{language} - one .", f"{language} - two ."],
        }
        for language in LANGUAGES
    }
    return {"image/key": photo, "image/locale": "th", **captions} | changed


BENGALI = {
    "caption": ["এক।"],
    "caption/tokenized": ["এক ।"],
    "caption/tokenized/lowercase": ["এক ।"],
}


@pytest.fixture
def xm3600(downloads):
    lines = [line("000411001ff7dd4f"), line("0b1a2c", bn=BENGALI)]
    text = "\n".join(json.dumps(one, ensure_ascii=False) for one in lines)
    downloads.write("xm3600/captions.jsonl", text + "\n")
    downloads.images("xm3600/images/000411001ff7dd4f.jpg", "xm3600/images/0b1a2c.jpg")
    return downloads


def test_a_photo_has_an_example_for_every_language(xm3600, examples):
    found = examples("xm3600", "test")
    assert len(found) == 72 and len(LANGUAGES) == 36
    assert [record["language"] for record in found[:36]] == list(LANGUAGES)
    thai = found[LANGUAGES.index("th")]
    assert thai["id"] == "000411001ff7dd4f/th" and thai["groups"] == "th"
    assert thai["references"] == ["th - one .", "th - two ."]
    bengali = found[36 + LANGUAGES.index("bn")]
    assert (bengali["id"], bengali["references"]) == ("0b1a2c/bn", ["এক ।"])
    photo = xm3600.folder / "xm3600/images/0b1a2c.jpg"
    assert bengali["image"] == [photo.read_bytes()] != found[0]["image"]


@pytest.mark.parametrize(
    ("second", "sentence", "kept"),
    [
        ({"image/key": "0b1a2c", "ar": {}}, "line 2, 'ar': the field 'caption/tokenized' is", 36),
        (line("0b1a2c", zh={"caption/tokenized": [""]}), "line 2, 'zh': 'caption/tokenized'", 71),
        ({"image/locale": "th"}, "line 2: the field 'image/key' is missing", 36),
        ([], "line 2: [] is no object of fields", 36),
    ],
)
def test_a_language_that_is_not_there(xm3600, read, second, sentence, kept):
    lines = f"{json.dumps(line('000411001ff7dd4f'))}\n{json.dumps(second)}\n"
    xm3600.write("xm3600/captions.jsonl", lines)
    good, bad = read("xm3600", "test")
    assert f"xm3600/captions.jsonl, {sentence}" in bad[0] and len(good) == kept
