"""The four kinds of records a user's JSONL file may hold, and every mistake one can make in them.

  caption   {"image": "img/1.jpg", "captions": ["a dog", "a brown dog"]}
  question  {"image": "img/1.jpg", "question": "what is it?", "answers": ["dog"]}
  choice    {"image": "img/1.jpg", "question": "which pet?", "choices": ["cat", "dog"], "answer": 1}
  box       {"image": "img/1.jpg", "expression": "the dog", "box": [12, 30, 200, 180]}

Every field may go by one of the other names in `FIELDS`. Optional in each: "kind" (one of the four;
otherwise it follows from the fields), "id" (unique within the file), "size" ([width, height] of the
image the box was drawn in, if that is not the image beside the file). Other fields are ignored.

- image: path inside the folder or inside its images.tar. `"image": null` says there is none
  (kinds question and choice only).
- answers, captions, expression: one string or several; numbers are taken as their text.
- answer of a choice: an index from 0, a letter ("B"), or the text of a choice. A string that is
  both a choice and a letter is taken as the choice.
- box: x1, y1, x2, y2. If all four are <= 1 they are fractions of width and height, else pixels.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omni_smola.data.preprocessors import MAX_CHOICES
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
    if "kind" in fields:
        if fields["kind"] not in FIELDS:
            raise UserError(
                f"{where}: kind {fields['kind']!r} is unknown; the kinds are {_list(FIELDS)}."
            )
        return fields["kind"]

    def has(kind: str, field: str) -> bool:
        return any(name in fields for name in FIELDS[kind][field])

    if has("choice", "choices"):
        return "choice"
    if has("box", "box"):
        return "box"
    if has("question", "question"):
        return "question"
    if has("caption", "captions"):
        return "caption"
    kinds = "; ".join(f"{kind}: {_list(names)}" for kind, names in FIELDS.items())
    raise UserError(
        f"{where}: cannot tell the kind of a record with the fields {_list(fields)}. "
        f"The kinds and their fields are {kinds}. Rename the fields, or name an adapter."
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
    image = values["image"]
    if image is None and kind not in _IMAGE_OPTIONAL:
        raise UserError(f"{where}: a '{kind}' record needs an image, but its image is null.")
    if not (image is None or isinstance(image, bytes) or (isinstance(image, str) and image)):
        raise UserError(f"{where}: image must be a path or null, not {image!r}.")
    common = {"kind": kind, "id": id, "image": image, "line": line}
    if kind == "caption":
        return Record(references=_texts(values["captions"], "captions", where), **common)
    if kind == "box":
        references = _texts(values["expression"], "expression", where)
        size = _size(fields, where) or (lambda: image_size(image))
        box = _box(values["box"], size, where)
        return Record(question=references[0], references=references, box=box, **common)
    question = _texts(values["question"], "question", where)[0]
    if kind == "question":
        references = _texts(values["answers"], "answers", where)
        return Record(question=question, references=references, **common)
    choices = _texts(values["choices"], "choices", where)
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
        return fields[present[0]]
    others = f" (or {_list(names[1:])})" if len(names) > 1 else ""
    null = ' (write "image": null if it has none)' if field == "image" else ""
    raise UserError(
        f"{where}: a '{kind}' record needs the field '{field}'{others}{null}; "
        f"it has {_list(fields)}, and the fields of this kind are {_list(FIELDS[kind])}."
    )


def _texts(value: Any, field: str, where: str) -> tuple[str, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise UserError(f"{where}: '{field}' is empty; give at least one text.")
    for text in values:
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise UserError(
                f"{where}: '{field}' must be a text or a list of texts, but holds {text!r}."
            )
    texts = tuple(str(text).strip() for text in values)
    if not any(texts) or (field == "choices" and not all(texts)):
        raise UserError(f"{where}: '{field}' holds empty text: {value!r}.")
    return texts


def _answer_index(answer: Any, choices: Sequence[str], where: str) -> int:
    last = chr(ord("A") + len(choices) - 1)
    if isinstance(answer, int) and not isinstance(answer, bool):
        if 0 <= answer < len(choices):
            return answer
    elif isinstance(answer, str):
        text = answer.strip()
        if text in choices:
            return choices.index(text)
        if len(text) == 1 and "A" <= text.upper() <= last:
            return ord(text.upper()) - ord("A")
    raise UserError(
        f"{where}: answer {answer!r} names none of the {len(choices)} choices; give an index from "
        f"0 to {len(choices) - 1}, a letter from A to {last}, or the text of a choice."
    )


def _size(fields: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    size = fields.get("size")
    if size is None:
        return None
    if not (isinstance(size, list) and len(size) == 2 and all(_number(v) and v > 0 for v in size)):
        raise UserError(f"{where}: size must be [width, height] in pixels, not {size!r}.")
    return size[0], size[1]


def _box(
    box: Any, size: tuple[int, int] | Callable[[], tuple[int, int]], where: str
) -> tuple[float, ...]:
    if not (isinstance(box, list | tuple) and len(box) == 4 and all(_number(v) for v in box)):
        raise UserError(f"{where}: box must be four numbers [x1, y1, x2, y2], not {box!r}.")
    width, height = 1, 1
    if max(box) > 1:
        width, height = size() if callable(size) else size
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        extent = f"{width} x {height} pixels" if max(box) > 1 else "1 x 1 (fractions)"
        raise UserError(
            f"{where}: box {list(box)} does not lie in its image of {extent}; it must satisfy "
            "0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height."
        )
    return x1 / width, y1 / height, x2 / width, y2 / height


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _list(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)
