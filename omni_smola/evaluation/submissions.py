"""The files that official evaluation servers and tools take, made of predictions.

Most are a list of objects, one per example, that give the official identifier back under a name of
its own, some as a number and some as text. The DUE benchmark wants a line per document.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from omni_smola.errors import UserError
from omni_smola.metrics.due_f1 import ABSENT
from omni_smola.metrics.iou import parse_box
from omni_smola.metrics.yes_no import verdict

Record = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Format:
    """A server's layout: [{id_key: id, answer_key: prediction}, ...], or {id: ...} without id_key.

    Attributes:
      id_key, answer_key: names of the two fields; without `id_key` the file is an object by id.
      number: whether the identifier is a number there.
      server: who takes the file.
      inside: the list stands in an object under this name; "" is no object.
      answer: prediction -> value.
      document: the file has a JSON line per document in the layout of DUE (du-schema) instead, and
        its values are what this makes of a prediction: none where there is nothing to say.
      question: whether the key of an annotation is the question of the example, which then must
        come with the prediction; else it is the second half of the identifier.
    """

    id_key: str
    answer_key: str
    number: bool
    server: str
    inside: str = ""
    answer: Callable[[str], Any] = str
    document: Callable[[str], Sequence[str]] | None = None
    question: bool = False

    @property
    def suffix(self) -> str:
        """Of the file's name."""
        return ".jsonl" if self.document else ".json"


def _values(prediction: str) -> list[str]:
    """Several values of an answer stand between bars, as in the references."""
    return [value.strip() for value in prediction.split("|")]


def _field_values(prediction: str) -> list[str]:
    return [] if prediction.strip().upper() == ABSENT.upper() else _values(prediction)


def _verdict(prediction: str) -> list[str]:
    """DUE's labels; what is neither is a "no", as the scorer counts it wrong or right."""
    return ["1" if verdict(prediction) == "yes" else "0"]


def _due(document: Callable[[str], Sequence[str]], question: bool = True) -> Format:
    server = "the DUE benchmark"
    return Format("name", "annotations", False, server, document=document, question=question)


FORMATS = {
    "vqa": Format("question_id", "answer", True, "EvalAI: VQAv2, OK-VQA, TextVQA"),
    "rrc": Format("questionId", "answer", True, "RRC: DocVQA, InfographicVQA"),
    "stvqa": Format("question_id", "answer", True, "RRC: ST-VQA"),
    "vizwiz": Format("image", "answer", False, "EvalAI: VizWiz-VQA"),
    "caption": Format(
        "image_id", "caption", True, "EvalAI, CodaLab: COCO, NoCaps, VizWiz-Captions"
    ),
    "textcaps": Format("image_id", "caption", False, "EvalAI: TextCaps"),
    "gqa": Format("questionId", "prediction", False, "the GQA site and EvalAI"),
    "aokvqa_direct": Format("", "direct_answer", False, "A-OKVQA leaderboard, direct answer"),
    "aokvqa_choice": Format("", "multiple_choice", False, "A-OKVQA leaderboard, multiple choice"),
    "refer": Format("ref_id", "sent", True, "refer's refEvaluation.py", inside="predictions"),
    # Boxes have no official tool: x1, y1, x2, y2 as fractions of width and height, or null.
    "refer_boxes": Format(
        "sent_id", "box", True, "no server (boxes by sent_id)", "predictions", parse_box
    ),
    "due": _due(_values),
    "due_fields": _due(_field_values, question=False),
    "due_verdict": _due(_verdict),
}


def text(name: str, predictions: Iterable[Record]) -> str:
    """The file's text.

    Args:
      name: a key of FORMATS.
      predictions: records with `id` and `prediction`, as the evaluator writes them; for DUE also
        `question`, which is the key of its annotations.

    Raises:
      UserError: an unknown format, or an identifier that is no number where the server wants one.
    """
    layout = find(name)
    if layout.document is not None:
        return _documents(layout, predictions)
    pairs = [
        (_identifier(layout, record["id"]), layout.answer(record["prediction"]))
        for record in predictions
    ]
    if not layout.id_key:
        value: Any = {key: {layout.answer_key: answer} for key, answer in pairs}
    else:
        value = [{layout.id_key: key, layout.answer_key: answer} for key, answer in pairs]
    if layout.inside:
        value = {layout.inside: value}
    return json.dumps(value, ensure_ascii=False, indent=0) + "\n"


def find(name: str) -> Format:
    """The format of this name; raises UserError where there is none."""
    if name not in FORMATS:
        raise UserError(
            f"There is no submission format {name!r}: choose one of {', '.join(FORMATS)}."
        )
    return FORMATS[name]


def needs_question(name: str) -> bool:
    """Whether records of this format ("" for none) must have a `question` too."""
    return name in FORMATS and FORMATS[name].question


def _documents(layout: Format, predictions: Iterable[Record]) -> str:
    """{name, annotations: [{id, key, values: [{value}]}]} a line, of "{document}/{annotation}".

    DUE's evaluator compares line by line, so that all examples of a split must be there.
    """
    documents: dict[str, list[dict[str, Any]]] = {}
    for record in predictions:
        name, _, annotation = record["id"].rpartition("/")
        found = documents.setdefault(name, [])
        given = [{"value": value} for value in layout.document(record["prediction"])]
        if given:
            key = record["question"] if layout.question else annotation
            found.append({"id": annotation, "key": key, "values": given})
    return "".join(
        json.dumps({"name": name, "annotations": annotations}, ensure_ascii=False) + "\n"
        for name, annotations in documents.items()
    )


def _identifier(layout: Format, identifier: str) -> str | int:
    if not layout.number:
        return identifier
    if not identifier.isdecimal():
        raise UserError(
            f"The example {identifier!r} cannot be submitted to {layout.server}, whose identifiers "
            "are whole numbers: evaluate the task on the official files."
        )
    return int(identifier)
