"""VQAv2 in the official layout; here also what every dataset's builder shares."""

import copy
import json

import pytest

from omni_smola.data.builders.official import builder as official
from omni_smola.data.builders.official import files
from omni_smola.errors import UserError

QUESTIONS = {
    "info": {},
    "questions": [
        {"image_id": 9, "question": "What is it?", "question_id": 9000},
        {"image_id": 9, "question": "How many?", "question_id": 9001},
        {"image_id": 25, "question": "Is it red?", "question_id": 25000},
    ],
}


def annotation(question_id, answers, answer_type="other"):
    return {
        "question_id": question_id,
        "image_id": question_id // 1000,
        "question_type": "what",
        "answer_type": answer_type,
        "multiple_choice_answer": answers[0],
        "answers": [
            {"answer": answer, "answer_confidence": "yes", "answer_id": i + 1}
            for i, answer in enumerate(answers)
        ],
    }


ANNOTATIONS = {
    "annotations": [
        annotation(25000, ["yes"] * 9 + ["no"], "yes/no"),
        annotation(9000, ["dog"] * 10),
        annotation(9001, ["2"] * 10, "number"),
    ]
}
VAL = "vqav2/v2_OpenEnded_mscoco_val2014_questions.json"
VAL_ANSWERS = "vqav2/v2_mscoco_val2014_annotations.json"
TEST = "vqav2/v2_OpenEnded_mscoco_test2015_questions.json"
PHOTOS = tuple(f"coco/val2014/COCO_val2014_{i:012d}.jpg" for i in (9, 25))


@pytest.fixture
def vqav2(downloads):
    downloads.write(VAL, QUESTIONS)
    downloads.write(VAL_ANSWERS, ANNOTATIONS)
    downloads.images(*PHOTOS)
    return downloads


def test_questions_answers_and_photos_meet(vqav2, examples):
    found = examples("vqav2", "validation")
    assert [record["id"] for record in found] == ["9000", "9001", "25000"]
    assert found[0]["question"] == "What is it?" and found[0]["references"] == ["dog"] * 10
    assert [record["groups"] for record in found] == ["other", "number", "yes/no"]
    photo = (vqav2.folder / PHOTOS[0]).read_bytes()
    assert found[0]["image"] == found[1]["image"] == [photo]
    assert found[2]["image"] == [(vqav2.folder / PHOTOS[1]).read_bytes()]
    assert found[2]["references"] == ["yes"] * 9 + ["no"]


def test_a_photo_is_stored_once(vqav2, source):
    opened = source("vqav2")
    assert opened.num_input_examples("validation") == 3
    assert opened._store.positions == {"25": 0, "9": 1}


def test_a_hidden_test_split_has_no_references(vqav2, examples):
    vqav2.write(TEST, QUESTIONS)
    assert [record["references"] for record in examples("vqav2", "test")] == [[], [], []]


def test_real_records(real, downloads, examples):
    real("vqav2", "vqav2")
    for year in ("train2014", "val2014"):
        real(f"coco/{year}", f"vqav2/{year}")
    found = examples("vqav2", "train")
    assert len(found) > 300
    assert all(len(record["references"]) == 10 and record["image"] for record in found)
    assert {record["groups"] for record in found} == {"yes/no", "number", "other"}
    assert len(examples("vqav2", "validation")) == 17


def test_missing_files_are_listed_with_their_origin(vqav2, examples):
    (vqav2.folder / VAL_ANSWERS).unlink()
    with pytest.raises(UserError, match=f"lacks 1 .*\n  {VAL_ANSWERS}  from https://visualqa.org"):
        examples("vqav2", "validation")


def test_missing_photos_are_told(vqav2, examples):
    for photo in PHOTOS:
        (vqav2.folder / photo).unlink()
    (vqav2.folder / "coco/val2014").rmdir()
    with pytest.raises(UserError, match=r"coco/val2014/  from https://cocodataset.org"):
        examples("vqav2", "validation")


def test_a_dataset_that_is_not_there_says_what_it_reads(tmp_path):
    with pytest.raises(UserError, match=r"--config.data.manual_dir=FOLDER. It reads\n  vqav2/v2_"):
        official.prepare("vqav2", tmp_path)


def test_a_split_that_is_not_there_is_named(vqav2, source):
    with pytest.raises(UserError, match="no split 'train'; it has 'validation'"):
        source("vqav2").num_input_examples("train")


def changed(change):
    """The questions and annotations after `change(question 1, its annotation)`."""
    questions, annotations = copy.deepcopy((QUESTIONS, ANNOTATIONS))
    change(questions["questions"], annotations["annotations"])
    return questions, annotations


def without(name):
    return lambda questions, annotations: questions[1].pop(name)


def put(name, value):
    return lambda questions, annotations: questions[1].update({name: value})


BAD = {
    "missing key": (without("question"), r"record 1: the field 'question' is missing; there are"),
    "wrong type": (put("question", ["How"]), r"record 1: 'question' must be a text, but is \["),
    "no object": (lambda q, a: q.__setitem__(1, 7), "record 1: 7 is no object of fields"),
    "no image": (put("image_id", 777), "the image '777' is not in the collection coco"),
    "duplicate id": (put("question_id", 9000), "the id '9000' stands in validation twice"),
    "empty answers": (
        lambda q, a: a[2].update(answers=[]),
        "'answers' must be 10, but there are 0",
    ),
    "no annotation": (lambda q, a: a.pop(2), "the field 'answers' is missing"),
    # As the byte 0xff is kept that stands in a file: see the test of the bytes below.
    "a lone surrogate": (put("question", "How\udcff"), r"record 1: 'How\\udcff' is not UTF-8"),
}


@pytest.mark.parametrize(("change", "sentence"), BAD.values(), ids=BAD)
def test_a_bad_record_stops_or_is_left_out(vqav2, examples, capsys, change, sentence):
    questions, annotations = changed(change)
    vqav2.write(VAL, questions)
    vqav2.write(VAL_ANSWERS, annotations)
    with pytest.raises(UserError, match=f"(?s){VAL}, .*{sentence}.*on_error=skip"):
        examples("vqav2", "validation")
    assert [r["id"] for r in examples("vqav2", "validation", "skip")] == ["9000", "25000"]
    told = capsys.readouterr().err
    assert "vqav2/validation: left out 1 bad records, kept 2" in told


def test_bytes_that_are_not_utf8_are_told_with_their_record(vqav2, examples, capsys):
    good = json.dumps(QUESTIONS).encode()
    vqav2.write(VAL, good.replace(b"How many?", b"How many\xff?"))
    with pytest.raises(UserError, match=rf"{VAL}, record 1: 'How many\\udcff\?' is not UTF-8"):
        examples("vqav2", "validation")
    assert [r["id"] for r in examples("vqav2", "validation", "skip")] == ["9000", "25000"]
    assert "left out 1 bad records" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"questions": [', "is not complete JSON .*line 1.*download it again"),
        ({"answers": []}, "is not an object with a list 'questions'"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(vqav2, examples, content, sentence):
    vqav2.write(VAL, content)
    with pytest.raises(UserError, match=f"{VAL} {sentence}"):
        examples("vqav2", "validation")


def test_a_split_without_a_good_record_is_told(vqav2, examples):
    vqav2.write(VAL_ANSWERS, {"annotations": []})
    with pytest.raises(UserError, match=r"n has no example, and 3 bad records: (?s:.*) record 0"):
        examples("vqav2", "validation", "skip")


def test_line_ends_inside_of_texts_are_no_line_ends(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "x\u2028y"}\n{"a": "z"}\n', encoding="utf-8")
    assert [record.text("a") for record in files.read_jsonl(path)] == ["x\u2028y", "z"]
    path.write_text('a,b\n"x\u2028\ny",1\r\nz,2\n', encoding="utf-8", newline="")
    records = files.read_table(path, ("a", "b"))
    assert [record.text("a") for record in records] == ["x\u2028\ny", "z"]


def test_a_policy_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="on_error is 'ignore': choose one of fail, skip"):
        official.prepare("vqav2", tmp_path, None, "ignore")
