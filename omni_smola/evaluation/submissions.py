"""The files that official evaluation servers take, made of predictions.

Most are a list of objects, one per example, that give the official identifier back under a name of
its own, some as a number and some as text.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from omni_smola.errors import UserError


@dataclasses.dataclass(frozen=True)
class Format:
    """A server's layout: [{id_key: id, answer_key: prediction}, ...], or {id: ...} if `by_id`.

    Attributes:
      id_key, answer_key: names of the two fields; without `id_key` the file is an object by id.
      number: whether the identifier is a number there.
      server: who takes the file.
    """

    id_key: str
    answer_key: str
    number: bool
    server: str


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
}


def text(name: str, predictions: Iterable[Mapping[str, Any]]) -> str:
    """The file's text.

    Args:
      name: a key of FORMATS.
      predictions: records with `id` and `prediction`, as the evaluator writes them.

    Raises:
      UserError: an unknown format, or an identifier that is no number where the server wants one.
    """
    if name not in FORMATS:
        raise UserError(
            f"There is no submission format {name!r}: choose one of {', '.join(FORMATS)}."
        )
    layout = FORMATS[name]
    pairs = [(_identifier(layout, record["id"]), record["prediction"]) for record in predictions]
    if not layout.id_key:
        value: Any = {key: {layout.answer_key: answer} for key, answer in pairs}
    else:
        value = [{layout.id_key: key, layout.answer_key: answer} for key, answer in pairs]
    return json.dumps(value, ensure_ascii=False, indent=0) + "\n"


def _identifier(layout: Format, identifier: str) -> str | int:
    if not layout.number:
        return identifier
    if not identifier.isdecimal():
        raise UserError(
            f"The example {identifier!r} cannot be submitted to {layout.server}, whose identifiers "
            "are whole numbers: evaluate the task on the official files."
        )
    return int(identifier)
