"""VizWiz-Captions (Gurari et al., arXiv 2002.08565): photos taken by people who are blind."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.coco_captions import caption_fields, captioned, image_key
from omni_smola.data.builders.official.files import Fields, SourceFile
from omni_smola.data.builders.official.image_sets import VIZWIZ

_PAGE = "annotations.zip of https://vizwiz.org/tasks-and-datasets/image-captioning/"


def _file(split: str) -> tuple[SourceFile, ...]:
    return (SourceFile(f"vizwiz_captions/annotations/{split}.json", _PAGE),)


class VizwizCaptions(OfficialBuilder):
    """VizWiz-Captions: train.json, val.json and test.json in vizwiz_captions/annotations/.

    One example a photo, its id the image id; CIDEr against the captions that are neither rejected
    nor precanned ("Quality issues are too severe ..."). Photos without any such caption are left
    out. The captions of test are the server's.
    """

    SPLITS = {"train": _file("train"), "validation": _file("val"), "test": _file("test")}
    HIDDEN = ("test",)
    IMAGES = VIZWIZ

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        return captioned(folder / self.SPLITS[split][0].path, hidden=split in self.HIDDEN)

    def example(self, record: Fields, split: str) -> Example | None:
        captions = caption_fields(record)
        kept = tuple(
            caption.text("caption")
            for caption in captions
            if not (_is(caption, "is_rejected") or _is(caption, "is_precanned"))
        )
        # The official evaluation scores the photos that have a caption left, and no others.
        if captions and not kept:
            return None
        return Example(id=record.label("id"), image=image_key(record, "file_name"), references=kept)


def _is(caption: Fields, name: str) -> bool:
    value = caption.get(name)
    if not isinstance(value, bool):
        raise caption.bad(f"'{name}' must be true or false, but is {value!r}.")
    return value
