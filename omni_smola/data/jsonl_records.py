"""The four kinds of records a user's JSONL file may hold, and every mistake one can make in them.

  caption   {"image": "img/1.jpg", "captions": ["a dog", "a brown dog"]}
  question  {"image": "img/1.jpg", "question": "what is it?", "answers": ["dog"]}
  choice    {"image": "img/1.jpg", "question": "which pet?", "choices": ["cat", "dog"], "answer": 1}
  box       {"image": "img/1.jpg", "expression": "the dog", "box": [12, 30, 200, 180]}

Every field may go by one of the other names in `FIELDS`. Optional in each: "kind" (one of the four;
otherwise it follows from the fields), "id" (unique within the file), "size" ([width, height] of the
image the box was drawn in, if that is not the image beside the file). Other fields are ignored.

A field that is null counts as left out. NaN, Infinity, blank texts and empty lists are values of no
field: a record that has one is refused. Texts are cleaned as `text.clean` does.

- image: path inside the folder or inside its images.tar. `"image": null` says there is none
  (kinds question and choice only).
- answers, captions, expression: one string or several; numbers are taken as their text.
- answer of a choice: an index from 0, a letter ("B"), or the text of a choice. A string that is
  both a choice and a letter is taken as the choice.
- box: x1, y1, x2, y2. If all four are <= 1 they are fractions of width and height, else pixels.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omni_smola.data import jsonl_adapters
from omni_smola.data.jsonl_values import list_names, text_of, texts_of
from omni_smola.data.preprocessors import MAX_CHOICES
from omni_smola.data.text import file_name, short
from omni_smola.errors import UserError

# field -> the names it goes by
FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "caption": {"image": ("image",), "captions": ("captions", "caption")},
    "question": {
        "image": ("image",),
        "question": ("question",),
        "answers": ("answers", "answer"),
    },
    "choice": {
        "image": ("image",),
        "question": ("question",),
        "choices": ("choices", "options"),
        "answer": ("answer", "answer_index"),
    },
    "box": {
        "image": ("image",),
        "expression": ("expression", "expressions", "utterance"),
        "box": ("box", "bbox"),
    },
}
# kind -> the field that tells it, where there are several in this order
_TOLD_BY = {"choice": "choices", "box": "box", "question": "question", "caption": "captions"}
_IMAGE_OPTIONAL = ("question", "choice")

ImageSize = Callable[[str], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Record:
    """One example of a JSONL folder; the fields are those of the common record."""

    kind: str
    id: str
    image: str | bytes | None  # a path, the encoded image itself, or none
    line: int
    question: str = ""
    choices: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    answer_index: int = -1
    box: tuple[float, ...] | None = None
    damaged: str = ""  # what is wrong with its line, of a record that only keeps its place


def infer_kind(fields: Mapping[str, Any], where: str) -> str:
    """The kind of a record, from its field "kind" or else from the fields it has."""
    kind = fields.get("kind")
    if kind is not None:
        if not isinstance(kind, str) or kind not in FIELDS:
            raise UserError(
                f"{where}: kind {short(kind)} is unknown; the kinds are {list_names(FIELDS)}."
            )
        return kind

    given = [name for name, value in fields.items() if value is not None]
    for names in (given, fields):  # what is null says least
        for kind, field in _TOLD_BY.items():
            if any(name in names for name in FIELDS[kind][field]):
                return kind
    kinds = "; ".join(f"{kind}: {list_names(names)}" for kind, names in FIELDS.items())
    raise UserError(
        f"{where}: cannot tell the kind of a record with the fields {list_names(fields)}. "
        f"The kinds and their fields are {kinds}. Rename the fields, or read another layout by an "
        "adapter, --config.data.sources.NAME.adapter=ADAPTER. The adapters and what they need are "
        + "; ".join(f"{name}: {needs}" for name, needs in jsonl_adapters.NEEDS.items())
        + "."
    )


def read_record(
    fields: Mapping[str, Any], kind: str, *, id: str, line: int, where: str, image_size: ImageSize
) -> Record:
    """Checks one record of a known kind and brings it to the common form.

    Args:
      fields: the decoded JSON object.
      kind: a key of `FIELDS`.
      id: the record's id.
      line: its line number, from 1.
      where: file and line in words, the start of every error message.
      image_size: gives (width, height) of the image of a path; asked for boxes in pixels only.

    Raises:
      UserError: a field is missing, of the wrong type, or out of range.
    """
    values = {field: _field(fields, kind, field, where) for field in FIELDS[kind]}
    image = _image(values["image"], kind, where)
    common = {"kind": kind, "id": id, "image": image, "line": line}
    if kind == "caption":
        return Record(references=texts_of(values["captions"], "captions", where), **common)
    if kind == "box":
        references = texts_of(values["expression"], "expression", where)
        size = _size(fields, where) or (lambda: image_size(image))
        box = _box(values["box"], size, where)
        return Record(question=references[0], references=references, box=box, **common)
    question = texts_of(values["question"], "question", where)[0]
    if kind == "question":
        references = texts_of(values["answers"], "answers", where)
        return Record(question=question, references=references, **common)
    choices = texts_of(values["choices"], "choices", where)
    if not 2 <= len(choices) <= MAX_CHOICES:
        raise UserError(f"{where}: {len(choices)} choices given; between 2 and {MAX_CHOICES} work.")
    index = _answer_index(values["answer"], choices, where)
    references = (choices[index],)
    return Record(
        question=question, choices=choices, references=references, answer_index=index, **common
    )


def _field(fields: Mapping[str, Any], kind: str, field: str, where: str) -> Any:
    names = FIELDS[kind][field]
    present = [name for name in names if name in fields]
    if present:
        return next((fields[name] for name in present if fields[name] is not None), None)
    others = f" (or {list_names(names[1:])})" if len(names) > 1 else ""
    null = ' (write "image": null if it has none)' if field == "image" else ""
    raise UserError(
        f"{where}: a '{kind}' record needs the field '{field}'{others}{null}; "
        f"it has {list_names(fields)}, and the fields of this kind are {list_names(FIELDS[kind])}."
    )


def _image(image: Any, kind: str, where: str) -> str | bytes | None:
    if image is None and kind not in _IMAGE_OPTIONAL:
        raise UserError(f"{where}: a '{kind}' record needs an image, but its image is null.")
    if image is None or isinstance(image, bytes):
        return image
    if not isinstance(image, str):
        raise UserError(f"{where}: image must be a path or null, not {short(image)}.")
    return file_name(image, f"{where}: image")


def record_id(fields: Mapping[str, Any], where: str) -> str | None:
    """The first of the fields "id" and "question_id" that is there, as text; None without any.

    Raises:
      UserError: it is no text and no number.
    """
    for name in ("id", "question_id"):
        if fields.get(name) is not None:
            return text_of(fields[name], name, where)
    return None


def _answer_index(answer: Any, choices: Sequence[str], where: str) -> int:
    letters = [chr(ord("A") + i) for i in range(len(choices))]
    if isinstance(answer, int) and not isinstance(answer, bool):
        if 0 <= answer < len(choices):
            return answer
    elif isinstance(answer, str | float):
        text = text_of(answer, "answer", where)
        if text in choices:
            return choices.index(text)
        if text.upper() in letters:
            return letters.index(text.upper())
    raise UserError(
        f"{where}: answer {short(answer)} names none of the {len(choices)} choices; give an index "
        f"from 0 to {len(choices) - 1}, a letter from A to {letters[-1]}, or the text of a choice."
    )


def _size(fields: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    size = fields.get("size")
    if size is None:
        return None
    if not (isinstance(size, list) and len(size) == 2 and all(_number(v) and v > 0 for v in size)):
        raise UserError(f"{where}: size must be [width, height] in pixels, not {short(size)}.")
    return size[0], size[1]


def _box(
    box: Any, size: tuple[int, int] | Callable[[], tuple[int, int]], where: str
) -> tuple[float, ...]:
    if not (isinstance(box, list | tuple) and len(box) == 4 and all(_number(v) for v in box)):
        raise UserError(f"{where}: box must be four numbers [x1, y1, x2, y2], not {short(box)}.")
    width, height = 1, 1
    if max(box) > 1:
        width, height = size() if callable(size) else size
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        extent = f"{width} x {height} pixels" if max(box) > 1 else "1 x 1 (fractions)"
        raise UserError(
            f"{where}: box {short(box)} does not lie in its image of {extent}; it must satisfy "
            "0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height."
        )
    return x1 / width, y1 / height, x2 / width, y2 / height


def _number(value: Any) -> bool:
    """Whether it is a finite number."""
    try:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    except OverflowError:  # a whole number that no float can hold
        return False
