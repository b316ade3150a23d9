"""The files that official servers take."""

import json

import pytest

from omni_smola.data.task_table import SUITE
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
        ("gqa", [{"questionId": "12", "prediction": "a dog"}]),
        ("caption", [{"image_id": 12, "caption": "a dog"}]),
        ("textcaps", [{"image_id": "12", "caption": "a dog"}]),
        ("stvqa", [{"question_id": 12, "answer": "a dog"}]),
        ("aokvqa_direct", {"12": {"direct_answer": "a dog"}}),
        ("aokvqa_choice", {"12": {"multiple_choice": "a dog"}}),
        ("refer", {"predictions": [{"ref_id": 12, "sent": "a dog"}]}),
        ("refer_boxes", {"predictions": [{"sent_id": 12, "box": None}]}),
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


def test_every_official_server_of_the_suite_has_its_file():
    wanted = {
        "vqav2 okvqa textvqa": "vqa",
        "docvqa infographicvqa": "rrc",
        "stvqa": "stvqa",
        "vizwiz_vqa": "vizwiz",
        "coco_captions nocaps vizwiz_captions": "caption",
        "textcaps": "textcaps",
        "gqa": "gqa",
        "aokvqa_direct": "aokvqa_direct",
        "aokvqa_choice": "aokvqa_choice",
        "refcoco_rec refcoco_plus_rec refcocog_rec": "refer_boxes",
        "refcoco_reg refcoco_plus_reg refcocog_reg": "refer",
        "tabfact": "due_verdict",
        "wikitablequestions": "due",
        "deepform": "due_fields",
    }
    found = {row.name: row.submission for row in SUITE if row.submission}
    assert found == {name: form for names, form in wanted.items() for name in names.split()}


def test_boxes_are_numbers():
    box = submissions.text("refer_boxes", [{"id": "3", "prediction": "[0.1,0.2,0.3,0.4]"}])
    assert json.loads(box) == {"predictions": [{"sent_id": 3, "box": [0.1, 0.2, 0.3, 0.4]}]}


def test_expressions_are_as_the_refer_toolkit_has_them(shared_dir):
    path = shared_dir / "data/official/refcoco/test/sample_expressions_testA.json"
    official = json.loads(path.read_text())["predictions"]
    records = [{"id": str(r["ref_id"]), "prediction": r["sent"]} for r in official]
    assert json.loads(submissions.text("refer", records)) == {"predictions": official}


class TestDue:
    """A line per document, as DUE's evaluator reads it."""

    def lines(self, name, *answers):
        records = [
            {"id": i, "question": question, "prediction": text} for i, question, text in answers
        ]
        assert submissions.find(name).suffix == ".jsonl"
        return [json.loads(line) for line in submissions.text(name, records).splitlines()]

    def test_fields(self):
        found = self.lines(
            "due_fields",
            ("a/b/advertiser", "What is the value for the advertiser?", "Café | Smith"),
            ("a/b/flight_to", "", "none"),  # said not to be there: no annotation
            ("c/flight_to", "", "None"),
        )
        values = [{"value": "Café"}, {"value": "Smith"}]
        annotation = {"id": "advertiser", "key": "advertiser", "values": values}
        assert found == [
            {"name": "a/b", "annotations": [annotation]},
            {"name": "c", "annotations": []},
        ]

    def test_questions(self):
        found = self.lines("due", ("t1/7", "who won?", "a|b"), ("t1/8", "when?", "1990"))
        assert found == [
            {
                "name": "t1",
                "annotations": [
                    {"id": "7", "key": "who won?", "values": [{"value": "a"}, {"value": "b"}]},
                    {"id": "8", "key": "when?", "values": [{"value": "1990"}]},
                ],
            }
        ]

    @pytest.mark.parametrize(
        ("prediction", "label"), [("yes", "1"), ("True", "1"), ("no", "0"), ("perhaps", "0")]
    )
    def test_verdicts(self, prediction, label):
        (found,) = self.lines("due_verdict", ("t1/7", "it rains", prediction))
        assert found["annotations"][0]["values"] == [{"value": label}]
        assert found["annotations"][0]["key"] == "it rains"

    def test_only_these_need_the_question(self):
        asking = [name for name in submissions.FORMATS if submissions.needs_question(name)]
        assert asking == ["due", "due_verdict"] and not submissions.needs_question("")
