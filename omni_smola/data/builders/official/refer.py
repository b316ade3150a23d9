"""The layout of the refer data: RefCOCO, RefCOCO+ and RefCOCOg.

refs(...).p is a pickled list of {ref_id, ann_id, image_id, file_name, category_id, split, sent_ids,
sentences: [{sent_id, sent, raw, tokens}]}; boxes and sizes of images stand in instances.json, in
COCO's layout. `file_name` has the annotation's number at its end and is no photo: image_id is.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from omni_smola.data.builders.official import safe_pickle
from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.either import Either
from omni_smola.data.builders.official.files import Fields, SourceFile, read_json
from omni_smola.data.builders.official.image_sets import COCO
from omni_smola.errors import UserError

_PAGE = "https://github.com/lichengunc/refer"
_NAMES = {
    "train": "train",
    "val": "validation",
    "test": "test",
    "testA": "testA",
    "testB": "testB",
}


def refer_splits(
    refs: str, splits: tuple[str, ...], *folders: str
) -> dict[str, tuple[SourceFile, ...]]:
    """The two files, which hold all splits, in the first of the folders that has them."""
    files = tuple(
        Either(f"{folders[0]}/{name}", _PAGE, tuple(f"{folder}/{name}" for folder in folders[1:]))
        for name in (refs, "instances.json")
    )
    return dict.fromkeys(splits, files)


class ReferBuilder(OfficialBuilder, skip_registration=True):
    """Expressions that refer to one object of a photo.

    Config `comprehension` has an example per sentence: the expression is the question, the box is
    wanted; its identifier is sent_id. Config `generation` has one per object: the box is given,
    all its sentences are references; its identifier is ref_id.

    COCO's boxes are those of polygons, a few of which reach over the edge of the photo: boxes are
    cut off there. One that has no area left is a bad record, because then annotation and photo do
    not belong together.
    """

    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="comprehension", description="From expression to box."),
        tfds.core.BuilderConfig(name="generation", description="From box to expression."),
    ]
    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.1.0": "Groups testA and testB."}
    IMAGES = COCO

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        folder = Path(dl_manager.manual_dir)
        refs, instances = (file.found(folder) for file in next(iter(self.SPLITS.values())))
        self._refs = _read(refs, instances, self.SPLITS) if refs and instances else {}
        generators = super()._split_generators(dl_manager)  # tells which of the files is missing
        return {split: each for split, each in generators.items() if split in self._refs}

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        for ref in self._refs.pop(split):  # they are large, and read once
            sentences = ref.values.get("sentences") if isinstance(ref.values, dict) else None
            if self.builder_config.name == "generation" or not isinstance(sentences, list):
                yield ref
                continue
            for sentence in sentences:
                yield Fields({**ref.values, "sentence": sentence}, ref.where)

    def example(self, record: Fields, split: str) -> Example:
        split_name = record.text("split")
        if _NAMES.get(split_name) not in self.SPLITS:
            raise record.bad(f"the split {split_name!r} is none of {', '.join(self.SPLITS)}.")
        sentences = [sentence.text("sent") for sentence in record.records("sentences")]
        common = {"image": record.label("image_id"), "box": fraction_box(record)}
        if split in ("testA", "testB"):
            common["groups"] = split  # people, other objects: evaluated together, reported apart
        if self.builder_config.name == "generation":
            return Example(id=record.label("ref_id"), references=tuple(sentences), **common)
        sentence = Fields(record.get("sentence"), record.where)
        expression = sentence.text("sent")
        return Example(
            id=sentence.label("sent_id"), question=expression, references=(expression,), **common
        )


def fraction_box(record: Fields) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of a ref's box as fractions of width and height, cut off at the edges.

    Raises:
      BadRecord: the box or the size of the photo is missing, or nothing of the box is in the photo.
    """
    for name, key in (("annotation", "ann_id"), ("photo", "image_id")):
        if record.get(name) is None:
            raise record.bad(f"{key} {record.get(key)!r} is not in instances.json.")
    annotation = Fields(record.get("annotation"), f"{record.where}, its annotation")
    photo = Fields(record.get("photo"), f"{record.where}, its photo")
    if annotation.get("image_id") != record.get("image_id"):
        raise record.bad("its annotation in instances.json is one of another photo.")
    x, y, w, h = annotation.numbers("bbox", 4)
    width, height = photo.integer("width", least=1), photo.integer("height", least=1)
    left, right = (min(max(at, 0.0), width) / width for at in (x, x + w))
    top, bottom = (min(max(at, 0.0), height) / height for at in (y, y + h))
    if left >= right or top >= bottom:
        raise record.bad(
            f"nothing of the box {[x, y, w, h]} is in the photo of {width} x {height} pixels."
        )
    return left, top, right, bottom


def _read(refs: Path, instances: Path, splits: Any) -> dict[str, list[Fields]]:
    """Split -> its refs, each with its `annotation` and `photo`; None for one that is not there."""
    values = safe_pickle.load(refs)
    if not isinstance(values, list):
        raise UserError(f"{refs} is not a list of refs: it is another file.")
    annotations, photos = _instances(instances)
    found: dict[str, list[Fields]] = {}
    for i, ref in enumerate(values):
        split = None
        if isinstance(ref, dict):
            ref = ref | {
                "annotation": _by_id(annotations, ref.get("ann_id")),
                "photo": _by_id(photos, ref.get("image_id")),
            }
            split = _NAMES.get(ref["split"]) if isinstance(ref.get("split"), str) else None
        if split not in splits:
            split = next(iter(splits))  # where example() tells what is wrong
        found.setdefault(split, []).append(Fields(ref, f"{refs}, ref {i}"))
    return found


def _instances(path: Path) -> tuple[dict[int, dict], dict[int, dict]]:
    """Boxes and sizes by id; the polygons, most of the file, are let go."""
    value = read_json(path)
    tables = []
    for name, kept in (("annotations", ("bbox", "image_id")), ("images", ("width", "height"))):
        rows = value.get(name) if isinstance(value, dict) else None
        if not isinstance(rows, list):
            raise UserError(f"{path} is not an object with a list '{name}': it is another file.")
        rows = [row for row in rows if isinstance(row, dict) and isinstance(row.get("id"), int)]
        tables.append({row["id"]: {k: row[k] for k in kept if k in row} for row in rows})
    return tables[0], tables[1]


def _by_id(table: dict[int, dict], key: object) -> dict | None:
    return table.get(key) if isinstance(key, int) else None
