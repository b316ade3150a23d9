"""NoCaps (Agrawal et al., arXiv 1812.08658): captions of objects that COCO has none of."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.chosen_images import Chosen
from omni_smola.data.builders.official.coco_captions import caption_fields, captioned, image_key
from omni_smola.data.builders.official.files import BadRecord, Fields, SourceFile, read_list

_PAGE = "https://nocaps.org/download"
_VALIDATION = SourceFile("nocaps/nocaps_val_4500_captions.json", _PAGE)
_TEST = SourceFile("nocaps/nocaps_test_image_info.json", _PAGE)
_OPEN_IMAGES = "https://s3.amazonaws.com/open-images-dataset/tar/"


def _keys(folder: Path) -> Iterator[str]:
    for file in (_VALIDATION, _TEST):
        for record in read_list(folder / file.path, "images") if file.is_in(folder) else ():
            try:
                yield image_key(record, "file_name")
            except BadRecord:  # found again, as an example
                continue


class Nocaps(OfficialBuilder):
    """NoCaps: nocaps_val_4500_captions.json and nocaps_test_image_info.json in nocaps/.

    Photos of Open Images V4 in nocaps/validation/ and nocaps/test/, of which only the named ones
    are stored. Split validation, scored by CIDEr against ten captions, in all and by domain
    (in-domain, near-domain, out-domain), and split test for the server. There is nothing to train
    on: the benchmark forbids it.
    """

    SPLITS = {"validation": (_VALIDATION,), "test": (_TEST,)}
    HIDDEN = ("test",)
    IMAGES = Chosen(
        "nocaps",
        tuple(
            SourceFile(f"nocaps/{split}/", f"{_OPEN_IMAGES}{split}.tar.gz")
            for split in ("validation", "test")
        ),
        keys=_keys,
    )

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        return captioned(folder / self.SPLITS[split][0].path, hidden=split in self.HIDDEN)

    def example(self, record: Fields, split: str) -> Example:
        captions = caption_fields(record)
        return Example(
            id=record.label("id"),
            image=image_key(record, "file_name"),
            references=tuple(caption.text("caption") for caption in captions),
            # The test file tells no domains.
            groups=record.text("domain") if "domain" in record else "",
        )
