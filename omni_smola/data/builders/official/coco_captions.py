"""Caption files: Karpathy's splits of COCO and Flickr30k, and the layout of COCO's own captions."""

import collections
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from omni_smola.data.builders.official.files import BadRecord, Fields, SourceFile, read_list

KARPATHY_ZIP = "caption_datasets.zip of https://cs.stanford.edu/people/karpathy/deepimagesent/"

# The name of a split in Karpathy's files -> ours. Papers train on what he left of COCO's
# validation photos, "restval", as well.
KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "validation", "test": "test"}

_STRAY = "stray"


def karpathy_files(path: str) -> dict[str, tuple[SourceFile, ...]]:
    """The splits of a dataset that is one of Karpathy's files."""
    return dict.fromkeys(KARPATHY_SPLITS.values(), (SourceFile(path, KARPATHY_ZIP),))


def karpathy(path: Path, split: str) -> Iterator[Fields]:
    """The images of one of our splits; `karpathy_captions` reads their captions.

    An image that names no split there is comes with "train", so that its mistake is found once.
    """
    for record in read_list(path, "images"):
        try:
            own = KARPATHY_SPLITS.get(record.text("split"), "train")
        except BadRecord:
            own = "train"
        if own == split:
            yield record


def karpathy_captions(record: Fields) -> tuple[str, ...]:
    """All captions of an image as they were written, five and sometimes more."""
    if record.text("split") not in KARPATHY_SPLITS:
        raise record.bad(
            f"'split' is {record.text('split')!r}, and not one of {', '.join(KARPATHY_SPLITS)}."
        )
    return tuple(sentence.text("raw") for sentence in record.records("sentences"))


def captioned(path: Path, hidden: bool = False) -> Iterator[Fields]:
    """The images of a file in COCO's layout, the annotations of each in its field "captions".

    Args:
      path: of the file. hidden: there are no captions in it, only images.

    Yields:
      The images in the order of the file, then the annotations that belong to none of them, for
      `caption_fields` to refuse.
    """
    images = list(read_list(path, "images"))
    ids = set()
    for image in images:
        try:
            ids.add(image.label("id"))
        except BadRecord:  # found again, when the image is read
            continue
    captions = collections.defaultdict(list)
    stray = []
    for i, record in enumerate(() if hidden else read_list(path, "annotations")):
        try:
            image_id = record.label("image_id")
            if image_id not in ids:
                raise record.bad(f"no image of the file has the id {image_id!r}.")
            captions[image_id].append(record.values)
        except BadRecord as error:
            what = str(error).removeprefix(f"{record.where}: ")
            stray.append(Fields({_STRAY: what}, f"{path}, annotation {i}"))
    for image in images:
        try:
            found = captions[image.label("id")]
        except BadRecord:
            yield image
        else:
            yield Fields({**image.values, "captions": found}, image.where)
    yield from stray


def caption_fields(record: Fields) -> list[Fields]:
    """The annotations of an image of `captioned`.

    Raises:
      BadRecord: it is no image, but an annotation without one.
    """
    if _STRAY in record:
        raise record.bad(record.text(_STRAY))
    return record.records("captions")


def image_key(record: Fields, name: str) -> str:
    """The key of an image in a collection by a field with its file name: that without suffix."""
    return PurePosixPath(record.text(name)).stem
