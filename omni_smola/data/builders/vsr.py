"""VSR (Liu et al., arXiv 2205.00363): does a statement on where things are hold for a photo?"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import tensorflow_datasets as tfds

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import Fields, SourceFile, read_jsonl
from omni_smola.data.builders.official.image_sets import COCO

_PAGE = "https://github.com/cambridgeltl/visual-spatial-reasoning"
_NAMES = {"train": "train", "validation": "dev", "test": "test"}


def _splits(config: str) -> dict[str, tuple[SourceFile, ...]]:
    return {
        split: (SourceFile(f"vsr/data/splits/{config}/{name}.jsonl", _PAGE),)
        for split, name in _NAMES.items()
    }


class Vsr(OfficialBuilder):
    """VSR: the repository as vsr/, of which data/splits/{zeroshot,random}/ is read; photos of
    COCO 2017.

    Configs `zeroshot`, where no concept is in two splits and which MoME and InstructBLIP report,
    and `random`; splits train, validation and test each. The question is the statement alone;
    scored by yes or no. Statements have no identifier: ours is the number of the line, from 0.
    """

    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="zeroshot", description="No concept is in two splits."),
        tfds.core.BuilderConfig(name="random", description="Split at random."),
    ]
    SPLITS = _splits("zeroshot")
    IMAGES = COCO

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.SPLITS = _splits(self.builder_config.name)

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        for number, record in enumerate(read_jsonl(folder / self.SPLITS[split][0].path)):
            if isinstance(record.values, dict):
                record = Fields({**record.values, "number": number}, record.where)
            yield record

    def example(self, record: Fields, split: str) -> Example:
        name = PurePosixPath(record.text("image")).stem
        return Example(
            id=record.label("number"),
            # 000000034128 is COCO's photo 34128, whichever year's folder it lies in.
            image=name.lstrip("0"),
            question=record.text("caption"),
            references=("yes" if record.integer("label", most=1) else "no",),
        )
