"""OK-VQA and A-OKVQA in the official layouts."""

import copy

import pytest

from omni_smola.errors import UserError


def answers(*pairs):
    """Five annotators' (stem, as typed), each twice, as the official file has them."""
    return [
        {
            "answer_id": i + 1,
            "raw_answer": raw,
            "answer_confidence": "yes",
            "answer": stem,
        }
        for i, (stem, raw) in enumerate(pair for pair in pairs for _ in range(2))
    ]


QUESTIONS = {
    "info": {},
    "task_type": "Open-Ended",
    "data_type": "mscoco",
    "license": {},
    "data_subtype": "val2014",
    "questions": [
        {
            "image_id": 297147,
            "question": "What sport can you use this for?",
            "question_id": 2971475,
        },
        {"image_id": 339761, "question": "Who invented these?", "question_id": 3397615},
    ],
}
ANNOTATIONS = {
    "annotations": [
        {
            "image_id": 297147,
            "answer_type": "other",
            "question_type": "four",
            "question_id": 2971475,
            "answers": answers(*[("race", "racing")] * 2, *[("motocross", "motocross")] * 3),
            "confidence": 3,
        },
        {
            "image_id": 339761,
            "answer_type": "other",
            "question_type": "other",
            "question_id": 3397615,
            "answers": answers(*[("ride", "riding")] * 5),
            "confidence": 3,
        },
    ]
}
PHOTOS = (
    "coco/val2014/COCO_val2014_000000297147.jpg",
    "coco/val2014/COCO_val2014_000000339761.jpg",
)


@pytest.fixture
def okvqa(downloads):
    downloads.write("okvqa/OpenEnded_mscoco_val2014_questions.json", QUESTIONS)
    downloads.write("okvqa/mscoco_val2014_annotations.json", ANNOTATIONS)
    downloads.images(*PHOTOS)
    return downloads


def test_the_stems_are_the_answers(okvqa, examples):
    first, second = examples("okvqa", "validation")
    assert (first["id"], first["question"]) == ("2971475", "What sport can you use this for?")
    assert first["references"] == ["race"] * 4 + ["motocross"] * 6
    assert first["image"] == [(okvqa.folder / PHOTOS[0]).read_bytes()]
    assert second["references"] == ["ride"] * 10
    assert [first["groups"], second["groups"]] == ["SR", "other"]


def test_five_answers_are_not_ten(okvqa, examples):
    changed = copy.deepcopy(ANNOTATIONS)
    del changed["annotations"][1]["answers"][5:]
    okvqa.write("okvqa/mscoco_val2014_annotations.json", changed)
    with pytest.raises(UserError, match="record 1: 'answers' must be 10, but there are 5"):
        examples("okvqa", "validation")


def aokvqa_record(question_id, image_id, *, difficult=False, hidden=False):
    record = {
        "split": "val",
        "image_id": image_id,
        "question_id": question_id,
        "question": "What is the man by the bags awaiting?",
        "choices": ["skateboarder", "train", "delivery", "cab "],
        "correct_choice_idx": 3,
        "direct_answers": ["ride"] * 2 + ["bus", "taxi", "Travelling"] + ["cab"] * 4 + ["his ride"],
        "difficult_direct_answer": difficult,
        "rationales": ["A train would not be on the street.", "He has bags.", "He waits."],
    }
    for name in ("correct_choice_idx", "direct_answers", "rationales") if hidden else ():
        del record[name]
    return record


@pytest.fixture
def aokvqa(downloads):
    train = [aokvqa_record("t1", 61, difficult=True)]
    val = [aokvqa_record("22MexNkBPpdZGX6sxbxVBH", 61), aokvqa_record("v2", 62, difficult=True)]
    test = [aokvqa_record(f"s{i}", 63, difficult=i == 1, hidden=True) for i in range(2)]
    for name, records in (("train", train), ("val", val), ("test", test)):
        downloads.write(f"aokvqa/aokvqa_v1p0_{name}.json", records)
    downloads.images(*(f"coco/val2017/{i:012d}.jpg" for i in (61, 62, 63)))
    return downloads


def test_multiple_choice_asks_all(aokvqa, examples):
    first, second = examples("aokvqa/multiple_choice", "validation")
    assert [first["id"], second["id"]] == ["22MexNkBPpdZGX6sxbxVBH", "v2"]
    # The leaderboard wants one of the choices as it is written.
    assert first["choices"] == ["skateboarder", "train", "delivery", "cab "]
    assert first["answer_index"] == 3 and first["references"] == ["cab "]
    assert first["image"] == [(aokvqa.folder / "coco/val2017/000000000061.jpg").read_bytes()]
    hidden = examples("aokvqa/multiple_choice", "test")
    assert [r["id"] for r in hidden] == ["s0", "s1"]
    assert all(r["answer_index"] == -1 and r["references"] == [] for r in hidden)
    assert all(len(r["choices"]) == 4 for r in hidden)


def test_direct_answers_leave_out_what_is_difficult_where_we_score(aokvqa, examples):
    (only,) = examples("aokvqa/direct_answer", "validation")
    assert only["id"] == "22MexNkBPpdZGX6sxbxVBH" and only["choices"] == []
    # Compared letter for letter: no case is folded here.
    assert only["references"] == ["ride"] * 2 + ["bus", "taxi", "Travelling"] + ["cab"] * 4 + [
        "his ride"
    ]
    assert [r["id"] for r in examples("aokvqa/direct_answer", "test")] == ["s0", "s1"]
    assert [r["id"] for r in examples("aokvqa/direct_answer", "train")] == ["t1"]


@pytest.mark.parametrize(
    ("config", "change", "sentence"),
    [
        (
            "multiple_choice",
            {"choices": ["a", "b", "c"]},
            r"'choices' must hold 4 or more texts, but is \['a'",
        ),
        (
            "multiple_choice",
            {"correct_choice_idx": 4},
            "'correct_choice_idx' must be a whole number from 0 to 3, but is 4",
        ),
        (
            "direct_answer",
            {"difficult_direct_answer": "no"},
            "'difficult_direct_answer' must be true or false, but is 'no'",
        ),
    ],
)
def test_a_bad_question_is_told(aokvqa, examples, config, change, sentence):
    records = [aokvqa_record("v1", 61), aokvqa_record("v2", 62) | change]
    aokvqa.write("aokvqa/aokvqa_v1p0_val.json", records)
    with pytest.raises(UserError, match=f"aokvqa_v1p0_val.json, record 1: {sentence}"):
        examples(f"aokvqa/{config}", "validation")
