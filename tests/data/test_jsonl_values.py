"""Values that are no values, wherever a record has a field."""

import json

import pytest

from omni_smola.data.jsonl import check_folder
from omni_smola.errors import UserError

NAN, INF = float("nan"), float("inf")
GOOD = {
    "caption": {"image": "a.png", "captions": ["a dog"]},
    "question": {"image": "a.png", "question": "what?", "answers": ["dog"]},
    "choice": {"image": "a.png", "question": "which?", "choices": ["cat", "dog"], "answer": 1},
    "box": {"image": "a.png", "expression": "the dog", "box": [1, 2, 3, 4], "size": [40, 20]},
    "statement": {"image": "a.png", "statement": "it rains", "label": 1},
    "languages": {"image": "a.png", "captions": {"en": "a dog"}},
    "counts": {"image": "a.png", "counts": {"cat": 2}},
    "fields": {"image": "a.png", "fields": {"total": "9.00"}},
    "patches": {"rgb": ["ff0000", "00ff00"], "target": 1, "utterance": "green"},
}
NOTHING = (NAN, INF, -INF, "", " \t", [], {}, True)
# layout -> its fields, and what of NOTHING is a value there all the same
FIELDS = {
    "caption": {"image": (), "captions": (), "id": ()},
    "question": {"image": (), "question": (), "answers": (), "question_id": ()},
    "choice": {"image": (), "question": (), "choices": (), "answer": ()},
    "box": {"image": (), "expression": (), "box": (), "size": ()},
    "statement": {"statement": (), "label": (True,), "image": ()},
    "languages": {"captions": (), "image": ()},
    "counts": {"counts": ({},), "id": ()},
    "fields": {"fields": ({},), "id": ()},
    "patches": {"rgb": (), "target": (), "utterance": ()},
}
CASES = [
    (layout, field, value)
    for layout, fields in FIELDS.items()
    for field, valid in fields.items()
    for value in NOTHING
    if value not in valid or (value is True and True not in valid)
]


@pytest.mark.parametrize("layout", FIELDS)
def test_nothing_is_refused_in_every_field(write_folder, layout):
    path = write_folder("x", train=[GOOD["caption"]])
    adapter = layout if layout not in ("caption", "question", "choice", "box") else "none"
    for field, value in [(f, v) for name, f, v in CASES if name == layout]:
        bad = GOOD[layout] | {field: value}
        (path / "train.jsonl").write_text(f"{json.dumps(GOOD[layout])}\n{json.dumps(bad)}\n")
        with pytest.raises(UserError, match=r"train\.jsonl, line 2: ") as error:
            check_folder(path, adapter=adapter)
        named = {"utterance": "expression"}.get(field, field)
        assert named in str(error.value), (bad, str(error.value))
        records = check_folder(path, adapter=adapter, on_error="skip").records["train"]
        assert [bool(record.damaged) for record in records] == [False, True], bad


@pytest.mark.parametrize(
    "line",
    [
        {"question": "what?", "answers": NAN},
        {"captions": [NAN, "a dog"]},
        {"captions": ["a dog", " "]},
        {"captions": ["a dog", None]},
        {"question": NAN, "answers": ["x"]},
        {"question": "?", "answers": [1, INF]},
        {"expression": "x", "box": [1, 2, 3, 4], "size": [INF, 64]},
        {"expression": "x", "box": [1, 2, 3, 4], "size": [True, 64]},
        {"expression": "x", "box": [1, 2, 3, 4], "size": [10**400, 64]},
        {"expression": "x", "box": [0, 0, 10**400, 1]},
        {"expression": "x", "box": [0, 0, True, 1]},
        {"question": "?", "choices": ["a", NAN], "answer": 0},
        {"question": "?", "choices": ["a", "b"], "answer": NAN},
        {"question": "?", "choices": [str(i) for i in range(26)], "answer": "\u00df"},
        {"counts": {"cat": NAN}},
        {"counts": {"cat": True}},
        {"counts": {" ": 2}},
        {"fields": {"total": INF}},
        {"captions": {"en": NAN}},
        {"statement": NAN, "label": True},
        {"statement": ["it rains"], "label": True},
        {"rgb": ["ff0000", NAN], "target": 0, "utterance": "x"},
        {"rgb": ["ff0000ff"], "target": 0, "utterance": "x"},
        {"rgb": ["ff0000"] * 100_000, "target": 0, "utterance": "x"},
        {"rgb": ["ff0000", "00ff00"], "target": 1.0, "utterance": "x"},
        {"captions": "x", "image": [NAN]},
        {"captions": "x", "id": ["x"]},
    ],
)
def test_a_record_with_no_value_is_a_sentence(write_folder, line):
    path = write_folder("x", train=[GOOD["caption"]])
    (path / "train.jsonl").write_text(json.dumps({"image": "a.png"} | line))
    with pytest.raises(UserError, match=r"train\.jsonl, line 1: ") as error:
        check_folder(path)
    assert len(str(error.value)) < 900


def test_null_is_a_field_left_out(write_folder):
    """What pandas writes of a table with a column for every field of any kind."""
    empty = dict.fromkeys(("answers", "choices", "answer", "box", "size", "id", "kind", "counts"))
    line = empty | {"image": "a.png", "caption": None, "captions": "a dog", "question": None}
    (record,) = check_folder(write_folder("c", train=[line])).records["train"]
    assert (record.kind, record.references, record.id) == ("caption", ("a dog",), "train-1")
    line = {"image": "a.png", "question": "?", "answers": None, "answer": "dog", "size": None}
    (record,) = check_folder(write_folder("q", train=[line])).records["train"]
    assert record.references == ("dog",)
    fields = {"image": "a.png", "fields": {"total": "9.00", "date": None, "name": ""}}
    (record,) = check_folder(write_folder("f", train=[fields])).records["train"]
    assert record.question == "what is the total?"


def test_a_field_of_a_document_may_have_several_values(write_folder):
    line = {"image": "a.png", "fields": {"total": ["9.00", 9]}, "part": "ignored"}
    (record,) = check_folder(write_folder("f", train=[line])).records["train"]
    assert (record.references, record.id) == (("9.00", "9"), "train-1/total")
    line = {"image": "a.png", "captions": "a dog", "part": "ignored"}
    (record,) = check_folder(write_folder("c", train=[line])).records["train"]
    assert record.id == "train-1"


def test_a_number_may_be_a_choice_and_its_answer(write_folder):
    line = {"image": None, "question": "2.5 is?", "choices": [1.5, 2.5], "answer": 2.5}
    (record,) = check_folder(write_folder("c", train=[line])).records["train"]
    assert (record.choices, record.answer_index) == (("1.5", "2.5"), 1)


def test_an_id_used_twice_is_skipped_like_any_bad_line(write_folder):
    twice = [GOOD["caption"] | {"id": "x"}, GOOD["caption"] | {"id": "x"}, GOOD["caption"]]
    records = check_folder(write_folder("x", train=twice), on_error="skip").records["train"]
    assert [bool(record.damaged) for record in records] == [False, True, False]
    assert "id 'x' was used on line 1" in records[1].damaged


def test_a_record_of_no_kind_hears_of_the_adapters(write_folder):
    with pytest.raises(UserError, match=r"cannot tell the kind") as error:
        check_folder(write_folder("x", train=[{"image": "a.png", "text": "?"}]))
    for adapter in ("statement", "languages", "counts", "fields", "patches"):
        assert f"{adapter}: '" in str(error.value)
    assert "sources.NAME.adapter=" in str(error.value)
