"""Adapters: JSONL files in the layout they were published in, read as one of the four kinds.

An adapter maps one decoded line to a list of records of `jsonl_records` (often one). It is named in
the config, or else inferred from the fields of a file's first line:

  statement  {"statement" | "sentence" | "caption", "label": true | 1 | "true" | ...}
             -> question "is it true: {statement}", answer "yes" or "no" (VSR, NLVR, TabFact)
  languages  {"captions": {"en": .., "de": ..}} -> the English caption (XM3600-like)
  counts     {"counts": {"cat": 2, ..}} -> a question "how many cat are there?" per name
  fields     {"fields": {"total": "9.00", ..}} -> a question "what is the total?" per field (SROIE)
  patches    {"rgb": ["ac7052", ..], "target": 2, "utterance": ..} -> a drawn row of colour patches
             and the box of the target (Stanford Colors in Context)
"""

import io
import re
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image, ImageColor

from omni_smola.data.jsonl_values import list_names, text_of, texts_of
from omni_smola.data.text import short
from omni_smola.errors import UserError

Fields = Mapping[str, Any]

PATCH_WIDTH, PATCH_HEIGHT = 18, 20
MAX_PATCHES = 256
_STATEMENTS = ("statement", "sentence", "caption")
_TRUTH = {"true": "yes", "1": "yes", "yes": "yes", "false": "no", "0": "no", "no": "no"}


def _truth(label: Any) -> str | None:
    return _TRUTH.get(str(label).lower())


def statement(fields: Fields, where: str) -> list[dict[str, Any]]:
    """A statement and whether it is true -> a yes/no question."""
    name = next((name for name in _STATEMENTS if fields.get(name) is not None), None)
    answer = _truth(fields.get("label"))
    if name is None or answer is None:
        raise UserError(
            f"{where}: adapter 'statement' needs one of {list(_STATEMENTS)} and a label among "
            f"{list(_TRUTH)}; label is {short(fields.get('label'))}, the fields are "
            f"{list_names(fields)}."
        )
    question = f"is it true: {text_of(fields[name], name, where)}"
    return [_keep(fields) | {"kind": "question", "question": question, "answers": [answer]}]


def languages(fields: Fields, where: str) -> list[dict[str, Any]]:
    """Captions by language -> the English ones."""
    captions = fields.get("captions")
    if not isinstance(captions, dict) or "en" not in captions:
        raise UserError(
            f"{where}: adapter 'languages' needs captions with the key 'en', not {short(captions)}."
        )
    return [_keep(fields) | {"kind": "caption", "captions": captions["en"]}]


def counts(fields: Fields, where: str) -> list[dict[str, Any]]:
    """Counts of named things -> one counting question each."""
    return _questions(fields, "counts", "how many {} are there?", where)


def fields(fields: Fields, where: str) -> list[dict[str, Any]]:
    """Key information of a document -> one question per non-empty field."""
    return _questions(fields, "fields", "what is the {}?", where)


def patches(fields: Fields, where: str) -> list[dict[str, Any]]:
    """Colours and the one described -> an image of patches side by side, box and expression."""
    colours, target = fields.get("rgb"), fields.get("target")
    if (
        not isinstance(colours, list)
        or not isinstance(target, int)
        or isinstance(target, bool)
        or not 0 <= target < len(colours)
    ):
        raise UserError(
            f"{where}: adapter 'patches' needs rgb, a list of colours, and target, an index into "
            f"it; they are {short(colours)} and {short(target)}."
        )
    if len(colours) > MAX_PATCHES:
        raise UserError(f"{where}: rgb holds {len(colours)} colours; at most {MAX_PATCHES} work.")
    image = Image.new("RGB", (PATCH_WIDTH * len(colours), PATCH_HEIGHT))
    for i, colour in enumerate(colours):
        if not re.fullmatch("[0-9a-fA-F]{6}", str(colour)):
            raise UserError(
                f"{where}: {short(colour)} is no colour; write six hex digits, as in 'ac7052'."
            )
        rgb = ImageColor.getrgb(f"#{colour}")
        image.paste(rgb, (PATCH_WIDTH * i, 0, PATCH_WIDTH * (i + 1), PATCH_HEIGHT))
    png = io.BytesIO()
    image.save(png, "PNG")
    box = [target / len(colours), 0.0, (target + 1) / len(colours), 1.0]
    expression = fields.get("utterance")
    return [
        _keep(fields)
        | {"kind": "box", "image": png.getvalue(), "expression": expression, "box": box}
    ]


Adapter = Callable[[Fields, str], list[dict[str, Any]]]

ADAPTERS: dict[str, Adapter] = {
    "statement": statement,
    "languages": languages,
    "counts": counts,
    "fields": fields,
    "patches": patches,
}

# adapter -> the fields that it reads
NEEDS = {
    "statement": "'statement', 'sentence' or 'caption', and a 'label' that is true or false",
    "languages": "'captions', an object with the key 'en'",
    "counts": "'counts', an object of numbers by name",
    "fields": "'fields', an object of texts by name",
    "patches": "'rgb', a list of colours, 'target', an index into it, and 'utterance'",
}


def infer_adapter(fields: Fields) -> str | None:
    """The adapter whose layout the first line of a file has, or None for the plain layout."""
    if "kind" in fields:
        return None
    if "label" in fields and _truth(fields["label"]) and any(n in fields for n in _STATEMENTS):
        return "statement"
    if isinstance(fields.get("captions"), dict):
        return "languages"
    if "rgb" in fields and "target" in fields:
        return "patches"
    for name in ("counts", "fields"):
        if isinstance(fields.get(name), dict):
            return name
    return None


def _questions(fields: Fields, name: str, template: str, where: str) -> list[dict[str, Any]]:
    values = fields.get(name)
    if not isinstance(values, dict):
        raise UserError(
            f"{where}: adapter '{name}' needs '{name}', an object, not {short(values)}."
        )
    questions = []
    for key, value in values.items():
        if value is None or value == "":
            continue
        part = text_of(key, f"a name in {name}", where)
        answers = texts_of(value, f"{part} of {name}", where)
        asked = {"kind": "question", "question": template.format(part), "answers": answers}
        questions.append(_keep(fields) | asked | {"part": part})
    return questions


def _keep(fields: Fields) -> dict[str, Any]:
    return {name: fields[name] for name in ("image", "id", "question_id") if name in fields}
