"""TextCaps (Sidorov et al., arXiv 2003.12462): captions that need the words on the photo."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder, grouped
from omni_smola.data.builders.official.files import Fields, SourceFile, read_list
from omni_smola.data.builders.official.image_sets import TEXTVQA


def _file(split: str) -> tuple[SourceFile, ...]:
    return (SourceFile(f"textcaps/TextCaps_0.1_{split}.json", "https://textvqa.org/textcaps/"),)


class Textcaps(OfficialBuilder):
    """TextCaps: TextCaps_0.1_{train,val,test}.json in textcaps/, the photos of TextVQA.

    The files have a row a caption; here one example a photo, its id the image_id, with its five
    captions. CIDEr on validation; the captions of test are the server's.
    """

    SPLITS = {"train": _file("train"), "validation": _file("val"), "test": _file("test")}
    HIDDEN = ("test",)
    IMAGES = TEXTVQA

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        rows = read_list(folder / self.SPLITS[split][0].path, "data")
        return grouped(rows, "image_id", "rows")

    def example(self, record: Fields, split: str) -> Example:
        photo = record.label("image_id")
        references = ()
        if split not in self.HIDDEN:
            references = tuple(row.text("caption_str") for row in record.records("rows"))
        return Example(id=photo, image=photo, references=references)
