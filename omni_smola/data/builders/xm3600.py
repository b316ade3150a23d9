"""Crossmodal-3600 (Thapliyal et al., arXiv 2205.12522): captions in 36 languages."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import Fields, SourceFile, read_jsonl
from omni_smola.data.builders.official.images import Folders

_PAGE = "https://google.github.io/crossmodal-3600/"
_IMAGES = "https://open-images-dataset.s3.amazonaws.com/crossmodal-3600/images.tgz"

LANGUAGES = tuple(
    "ar bn cs da de el en es fa fi fil fr he hi hr hu id it ja ko mi nl no pl pt quz ro ru sv sw "
    "te th tr uk vi zh".split()
)


class Xm3600(OfficialBuilder):
    """XM3600: captions.jsonl and the folder images (images.tgz unpacked) in xm3600/.

    Split test only: nothing is trained on. One example a photo and language, its id "photo/th";
    the language is also its group, so that CIDEr is taken for each of the 36 alone. References are
    the captions as the set's authors split them into words ("caption/tokenized"): they are to be
    scored by words between spaces, for no rule of English splits Thai or Chinese.
    """

    SPLITS = {"test": (SourceFile("xm3600/captions.jsonl", f"captions.zip of {_PAGE}"),)}
    IMAGES = Folders("xm3600", (SourceFile("xm3600/images/", _IMAGES),))

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        for record in read_jsonl(folder / self.SPLITS[split][0].path):
            if not isinstance(record.values, Mapping) or "image/key" not in record:
                yield record
                continue
            for language in LANGUAGES:
                yield Fields({**record.values, "language": language}, record.where)

    def example(self, record: Fields, split: str) -> Example:
        photo = record.text("image/key")
        language = record.text("language")
        captions = Fields(record.get(language), f"{record.where}, '{language}'")
        return Example(
            id=f"{photo}/{language}",
            image=photo,
            references=tuple(captions.texts("caption/tokenized")),
            groups=language,
            language=language,
        )
