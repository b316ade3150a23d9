"""The configs of the mini suite: which function makes their examples, and how many."""

import dataclasses
import zlib
from collections.abc import Callable

import numpy as np

from omni_smola.data.builders.mini_suite import pages, scenes, texts
from omni_smola.data.builders.mini_suite.records import Record
from omni_smola.errors import UserError


@dataclasses.dataclass(frozen=True)
class Family:
    """One config: (side, index, generator) -> record, its sizes and a line of description."""

    make: Callable[[str, int, np.random.Generator], Record]
    sizes: dict[str, int]
    description: str


def _tuning(make: Callable, description: str) -> Family:
    return Family(make, {"train": 3000, "validation": 200, "test": 256}, description)


def _pretraining(make: Callable, description: str) -> Family:
    return Family(make, {"train": 20000, "validation": 200}, description)


FAMILIES: dict[str, Family] = {
    "caption": _tuning(scenes.caption, "Two objects and their relation, five captions."),
    "vqa": _tuning(scenes.vqa, "easy-vqa's images and questions, ten answers."),
    "count": _tuning(scenes.count, "How many shapes, digits or objects, 0 to 6."),
    "chart": _tuning(pages.chart, "Bar charts of real tables: extremes, values, colours."),
    "document": _tuning(pages.document, "Real rows written on a page, one value asked."),
    "box": _tuning(scenes.box, "A referring expression and the box of its object."),
    "choice": _tuning(scenes.choice, "Three or four options about a digit, shape or scene."),
    "pretrain_caption": _pretraining(scenes.pretrain_caption, "One object, five captions."),
    "pretrain_vqa": _pretraining(scenes.pretrain_vqa, "Colour and shape of one object."),
    "pretrain_box": _pretraining(scenes.pretrain_box, "One object and its box."),
    "pretrain_document": _pretraining(pages.pretrain_document, "Reading words and numbers."),
    "pretrain_text": _pretraining(texts.pretrain_text, "Copy a text, fill its blank, or write it."),
}


def side_of(config: str, split: str) -> str:
    """The side whose ingredients a split is made of: pretraining has a validation side apart."""
    pretraining = config.startswith("pretrain_") and split == "validation"
    return "pretrain_validation" if pretraining else split


def example(config: str, split: str, index: int) -> Record:
    """Example `index` of a split: a pure function of its arguments, in any order, any process.

    Returns:
      The common record (see records.record) with its id "config/split/index".

    Raises:
      UserError: there is no such config, split or index.
    """
    family = FAMILIES.get(config)
    if family is None:
        raise UserError(f"mini_suite has no config '{config}'; it has {', '.join(FAMILIES)}.")
    if not 0 <= index < family.sizes.get(split, 0):
        sizes = ", ".join(f"{name} ({size})" for name, size in family.sizes.items())
        raise UserError(
            f"mini_suite/{config} has no example {index} in split '{split}'; its splits: {sizes}."
        )
    rng = np.random.default_rng((zlib.crc32(f"{config}/{split}".encode()), index))
    made = family.make(side_of(config, split), index, rng)
    return {"id": f"{config}/{split}/{index}", **made}
