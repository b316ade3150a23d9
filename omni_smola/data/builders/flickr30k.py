"""Flickr30k (Young et al., TACL 2014) in the splits of Karpathy and Fei-Fei."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.coco_captions import (
    image_key,
    karpathy,
    karpathy_captions,
    karpathy_files,
)
from omni_smola.data.builders.official.files import Fields, SourceFile
from omni_smola.data.builders.official.images import Folders

_FORM = "https://shannon.cs.illinois.edu/DenotationGraph/ (by a form)"


class Flickr30k(OfficialBuilder):
    """Flickr30k: dataset_flickr30k.json and the folder flickr30k-images in flickr30k/.

    Splits train, validation and test (29,000, 1,014 and 1,000 photos); one example a photo, its id
    the number in the file name; CIDEr against all five captions.
    """

    SPLITS = karpathy_files("flickr30k/dataset_flickr30k.json")
    IMAGES = Folders("flickr30k", (SourceFile("flickr30k/flickr30k-images/", _FORM),))

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        return karpathy(folder / self.SPLITS[split][0].path, split)

    def example(self, record: Fields, split: str) -> Example:
        photo = image_key(record, "filename")
        return Example(id=photo, image=photo, references=karpathy_captions(record))
