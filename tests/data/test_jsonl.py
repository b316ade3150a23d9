"""Bring your own data: what loads, and the sentence for each mistake."""

import io
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from omni_smola.data.jsonl import JsonlFolder, JsonlSource, check_folder
from omni_smola.data.sources import parse_record
from omni_smola.errors import UserError

CAPTION = {"image": "img/1.png", "captions": ["a dog", "a brown dog"]}
QUESTION = {"image": "img/1.png", "question": "what is it?", "answers": ["dog"]}
CHOICE = {"image": "img/1.png", "question": "which?", "choices": ["cat", "dog"], "answer": 1}
BOX = {"image": "img/1.png", "expression": "the dog", "box": [10, 5, 20, 20]}  # of 40 x 20


def without(record: dict, field: str) -> dict:
    return {name: value for name, value in record.items() if name != field}


def read(folder, split="train", index=0):
    record = parse_record(JsonlSource(folder).read(split, [index])[0])
    return {name: value.numpy() for name, value in record.items()}


@pytest.mark.parametrize("tar", [False, True])
def test_a_folder_of_each_kind(write_folder, tar):
    folder = check_folder(write_folder("c", tar=tar, train=[CAPTION], test=[CAPTION]))
    assert folder.kind == "caption"
    assert list(folder.records) == ["train", "test"]
    record = read(folder)
    assert record["id"] == b"train-1"
    assert list(record["references"]) == [b"a dog", b"a brown dog"]
    assert record["answer_index"] == -1
    assert tf.io.decode_image(record["image"][0]).shape == (20, 40, 3)

    record = read(check_folder(write_folder("q", tar=tar, train=[QUESTION])))
    assert record["question"] == b"what is it?"
    assert list(record["references"]) == [b"dog"]

    record = read(check_folder(write_folder("m", tar=tar, train=[CHOICE])))
    assert list(record["choices"]) == [b"cat", b"dog"]
    assert record["answer_index"] == 1
    assert list(record["references"]) == [b"dog"]

    record = read(check_folder(write_folder("b", tar=tar, train=[BOX])))
    assert record["question"] == b"the dog"
    np.testing.assert_allclose(record["box"], [0.25, 0.25, 0.5, 1.0])


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        ([0.1, 0.2, 0.3, 1.0], None, [0.1, 0.2, 0.3, 1.0]),
        ([0, 0, 40, 20], None, [0, 0, 1, 1]),
        ([0, 0, 40, 20], [400, 200], [0, 0, 0.1, 0.1]),
    ],
)
def test_boxes_in_pixels_and_in_fractions(write_folder, box, size, expected):
    record = BOX | {"box": box} | ({"size": size} if size else {})
    loaded = read(check_folder(write_folder("b", train=[record])))
    np.testing.assert_allclose(loaded["box"], expected, rtol=1e-6)


@pytest.mark.parametrize("answer", [1, "B", "b", "dog", " dog "])
def test_the_answer_of_a_choice_by_index_letter_or_text(write_folder, answer):
    folder = check_folder(write_folder("m", train=[CHOICE | {"answer": answer}]))
    assert read(folder)["answer_index"] == 1


def test_a_choice_that_is_a_letter_counts_as_the_choice(write_folder):
    record = CHOICE | {"choices": ["B", "A"], "answer": "A"}
    assert read(check_folder(write_folder("m", train=[record])))["answer_index"] == 1


def test_aliases_numbers_and_a_question_without_image(write_folder):
    records = [
        {"image": None, "question": "2 + 2?", "answer": 4},
        {"image": "img/1.png", "question": "and?", "answers": [1, 2.5, "x"], "license": "ignored"},
    ]
    folder = check_folder(write_folder("q", train=records))
    assert read(folder)["image"].size == 0
    assert list(read(folder)["references"]) == [b"4"]
    assert list(read(folder, index=1)["references"]) == [b"1", b"2.5", b"x"]


# (records of train.jsonl, what the sentence says)
MISTAKES = [
    (
        [QUESTION, without(QUESTION, "answers")],
        r"line 2: .*needs the field 'answers' \(or 'answer'",
    ),
    ([without(CAPTION, "image")], r"line 1: .*needs the field 'image'.*\"image\": null"),
    ([{"text": "?"}], r"line 1: cannot tell the kind.*'text'.*caption: 'image', 'captions'"),
    ([CAPTION | {"kind": "video"}], r"line 1: kind 'video' is unknown; the kinds are 'caption'"),
    ([CAPTION | {"kind": "caption"}, QUESTION | {"kind": "question"}], r"line 2: .*own folder"),
    ([CAPTION | {"image": None}], r"line 1: a 'caption' record needs an image"),
    ([CAPTION | {"image": 7}], r"line 1: image must be a path or null, not 7"),
    ([CAPTION | {"captions": []}], r"line 1: 'captions' is empty"),
    ([CAPTION | {"captions": [" "]}], r"line 1: 'captions' holds empty text"),
    ([CAPTION | {"captions": [{"a": 1}]}], r"line 1: 'captions' must be a text"),
    ([CHOICE | {"answer": 2}], r"line 1: answer 2 names none of the 2 choices.*A to B"),
    ([CHOICE | {"answer": "C"}], r"line 1: answer 'C' names none"),
    ([CHOICE | {"answer": -1}], r"line 1: answer -1 names none"),
    ([CHOICE | {"choices": ["cat"]}], r"line 1: 1 choices given; between 2 and 26"),
    ([CHOICE | {"choices": ["cat", ""]}], r"line 1: 'choices' holds empty text"),
    ([BOX | {"box": [10, 5, 41, 20]}], r"line 1: box \[10, 5, 41, 20\] .*40 x 20 pixels"),
    ([BOX | {"box": [20, 5, 10, 20]}], r"line 1: box .*x1 < x2"),
    ([BOX | {"box": [-0.1, 0, 0.5, 1]}], r"line 1: box .*1 x 1 \(fractions\)"),
    ([BOX | {"box": [1, 2, 3]}], r"line 1: box must be four numbers"),
    ([BOX | {"size": [0, 10]}], r"line 1: size must be \[width, height\]"),
    ([CAPTION | {"id": "x"}, CAPTION | {"id": "x"}], r"line 2: id 'x' was used on line 1"),
    (['{"image": '], r"line 1: not valid JSON"),
    (["[1, 2]"], r"line 1: a line must hold one JSON object"),
    ([], r"train\.jsonl is empty"),
]


@pytest.mark.parametrize(("records", "sentence"), MISTAKES)
def test_mistakes_in_a_file_name_file_line_and_field(write_folder, records, sentence):
    path = write_folder("x", train=records)
    with pytest.raises(UserError, match=sentence) as error:
        check_folder(path)
    assert str(path / "train.jsonl") in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_broken_images_are_found_before_training(write_folder):
    path = write_folder("x", train=[CAPTION, CAPTION | {"image": "img/2.png"}])
    (path / "img/2.png").write_text("no image")
    with pytest.raises(UserError, match=r"line 2: Image img/2\.png of .* is not an image"):
        check_folder(path)
    (path / "img/2.png").unlink()
    with pytest.raises(UserError, match=r"line 2: image img/2\.png is neither in .*images\.tar"):
        check_folder(path)


def test_mistakes_in_a_folder(write_folder, tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        check_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds none of the files train\.jsonl"):
        check_folder(write_folder("empty"))
    both = write_folder("both", val=[CAPTION], validation=[CAPTION])
    with pytest.raises(UserError, match=r"both validation\.jsonl and val\.jsonl"):
        check_folder(both)
    broken = write_folder("broken", train=[CAPTION])
    (broken / "images.tar").write_bytes(b"not a tar file" * 100)
    with pytest.raises(UserError, match=r"images\.tar cannot be read"):
        check_folder(broken)
    with pytest.raises(UserError, match=r"kind 'video' is unknown"):
        check_folder(broken, kind="video")
    with pytest.raises(UserError, match=r"adapter 'nlvr2' is unknown.*'statement'"):
        check_folder(broken, adapter="nlvr2")


def test_a_split_that_is_not_there(write_folder):
    source = JsonlSource(check_folder(write_folder("c", train=[CAPTION])))
    with pytest.raises(UserError, match=r"has no split 'test'; it has 'train'"):
        source.num_input_examples("test")


def test_a_tar_is_read_in_place_at_any_index(write_folder):
    records = [CAPTION | {"image": f"img/{i}.png"} for i in range(20)]
    folder = JsonlFolder(write_folder("c", tar=True, train=records))
    with tarfile.open(folder.path / "images.tar") as archive:
        for i in (19, 0, 7):
            expected = archive.extractfile(f"img/{i}.png").read()
            assert read(folder, index=i)["image"][0] == expected


# (line, adapter that is inferred, kind, questions and references that come of it)
LAYOUTS = [
    (
        {"image": "1.png", "statement": "it rains", "label": 1},
        "statement",
        [("is it true: it rains", ["yes"])],
    ),
    (
        {"image": "1.png", "sentence": "it rains", "label": "false"},
        "statement",
        [("is it true: it rains", ["no"])],
    ),
    (
        {"image": "1.png", "caption": "it rains", "label": 0},
        "statement",
        [("is it true: it rains", ["no"])],
    ),
    (
        {"image": "1.png", "captions": {"de": "ein Hund", "en": "a dog"}},
        "languages",
        [("", ["a dog"])],
    ),
    (
        {"image": "1.png", "counts": {"cat": 2, "dog": 0}},
        "counts",
        [("how many cat are there?", ["2"]), ("how many dog are there?", ["0"])],
    ),
    (
        {"image": "1.png", "fields": {"total": "9.00", "date": ""}},
        "fields",
        [("what is the total?", ["9.00"])],
    ),
    ({"image": "1.png", "caption": "a dog", "label": "dog"}, "none", [("", ["a dog"])]),
]


@pytest.mark.parametrize(("line", "adapter", "expected"), LAYOUTS)
def test_published_layouts_are_recognised(write_folder, line, adapter, expected):
    path = write_folder("x", train=[line])
    for folder in (check_folder(path), check_folder(path, adapter=adapter)):
        made = [(r.question, list(r.references)) for r in folder.records["train"]]
        assert made == expected


def test_colour_patches_are_drawn(write_folder):
    line = {"rgb": ["ff0000", "00ff00", "0000ff"], "target": 2, "utterance": "blue"}
    record = read(check_folder(write_folder("x", train=[line])))
    with Image.open(io.BytesIO(record["image"][0])) as image:
        assert image.size == (54, 20)
        assert image.getpixel((0, 0)) == (255, 0, 0)
        assert image.getpixel((53, 19)) == (0, 0, 255)
    assert record["question"] == b"blue"
    np.testing.assert_allclose(record["box"], [2 / 3, 0, 1, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("line", "adapter", "sentence"),
    [
        ({"image": "1.png", "statement": "x"}, "statement", r"line 1: .*label is None"),
        ({"image": "1.png", "captions": {"de": "x"}}, "languages", r"line 1: .*key 'en'"),
        ({"image": "1.png", "counts": [1]}, "counts", r"line 1: .*an object, not \[1\]"),
        ({"rgb": ["ff0000"], "target": 1}, "patches", r"line 1: .*an index into it"),
        ({"rgb": ["red!"], "target": 0}, "patches", r"line 1: 'red!' is no colour"),
    ],
)
def test_mistakes_an_adapter_finds(write_folder, line, adapter, sentence):
    with pytest.raises(UserError, match=sentence):
        check_folder(write_folder("x", train=[line]), adapter=adapter)
