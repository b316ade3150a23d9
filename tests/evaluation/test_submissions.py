"""The files that official servers take."""

import json

import pytest

from omni_smola.errors import UserError
from omni_smola.evaluation import submissions

PREDICTIONS = [
    {"id": "12", "prediction": "a dog", "references": []},
    {"id": "7", "prediction": 'the "red" café', "references": []},
]


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("vqa", [{"question_id": 12, "answer": "a dog"}]),
        ("rrc", [{"questionId": 12, "answer": "a dog"}]),
        ("vizwiz", [{"image": "12", "answer": "a dog"}]),
        ("caption", [{"image_id": 12, "caption": "a dog"}]),
        ("gqa", [{"questionId": "12", "prediction": "a dog"}]),
        ("aokvqa_direct", {"12": {"direct_answer": "a dog"}}),
    ],
)
def test_layouts(name, want):
    assert json.loads(submissions.text(name, PREDICTIONS[:1])) == want


def test_all_predictions_are_there_in_order_and_readable():
    text = submissions.text("vqa", PREDICTIONS)
    assert [record["question_id"] for record in json.loads(text)] == [12, 7]
    assert "café" in text


def test_mistakes_are_sentences():
    with pytest.raises(UserError, match="no submission format 'coco': choose one of vqa, rrc"):
        submissions.text("coco", PREDICTIONS)
    with pytest.raises(UserError, match="'12/de' cannot be submitted to EvalAI: VQAv2"):
        submissions.text("vqa", [PREDICTIONS[0] | {"id": "12/de"}])
