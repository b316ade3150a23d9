"""COCO captions (Chen et al., arXiv 1504.00325) in the splits of Karpathy and Fei-Fei."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.coco_captions import (
    karpathy,
    karpathy_captions,
    karpathy_files,
)
from omni_smola.data.builders.official.files import Fields
from omni_smola.data.builders.official.image_sets import COCO


class CocoCaptions(OfficialBuilder):
    """COCO captions: dataset_coco.json in coco_captions/, photos of train2014 and val2014.

    Splits train (Karpathy's train and restval), validation and test; one example a photo, its id
    the COCO id; CIDEr against all captions, five or more, of the 5,000 photos of test.
    """

    SPLITS = karpathy_files("coco_captions/dataset_coco.json")
    IMAGES = COCO

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        return karpathy(folder / self.SPLITS[split][0].path, split)

    def example(self, record: Fields, split: str) -> Example:
        photo = record.label("cocoid")
        return Example(id=photo, image=photo, references=karpathy_captions(record))
