"""VisualMRC (Tanaka et al., arXiv 2101.11272): questions on web pages, answered in sentences."""

import collections
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import BadRecord, Fields, SourceFile, read_jsonl
from omni_smola.data.builders.official.images import Made, Read
from omni_smola.errors import UserError

_PAGE = "https://huggingface.co/datasets/NTT-hil-insight/VisualMRC"
_NAMES = {"train": "train", "validation": "dev", "test": "test"}


def _file(name: str) -> SourceFile:
    return SourceFile(f"visualmrc/data/{name}.jsonl", _PAGE)


def _screenshots(folder: Path) -> dict[str, Read]:
    """The images that the records name, by their path below visualmrc/."""
    named: set[str] = set()
    for name in _NAMES.values():
        path = folder / _file(name).path
        for record in read_jsonl(path) if path.is_file() else ():
            try:
                named.add(_image(record))
            except BadRecord:  # told when its questions are read
                continue
    paths = {name: folder / "visualmrc" / name for name in sorted(named)}
    found = {name: path.read_bytes for name, path in paths.items() if path.is_file()}
    if not found:
        raise UserError(
            f"Of the {len(named)} screenshots that data/*.jsonl of VisualMRC names, such as "
            f"{min(named, default='none')!r}, none is below {folder / 'visualmrc'}: put them "
            f"there; they come from {_PAGE}."
        )
    return found


def _image(record: Fields) -> str:
    name = record.text("image_filename")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise record.bad(f"'image_filename' {name!r} leads out of the download folder.")
    return str(path)


class Visualmrc(OfficialBuilder):
    """VisualMRC: data/{train,dev,test}.jsonl in visualmrc/, and the screenshots at the paths below
    visualmrc/ that `image_filename` gives.

    Splits train, validation and test. Answers are written freely; scored by CIDEr, BLEU and
    ROUGE-L. The words on the page come in the order of its regions. A question's identifier is
    that of its screenshot and its number there, from 0: the official ones are not needed anywhere.
    """

    SPLITS = {split: (_file(name),) for split, name in _NAMES.items()}
    IMAGES = Made("visualmrc", (), _screenshots)

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        numbers: collections.Counter[str] = collections.Counter()
        for page in read_jsonl(folder / self.SPLITS[split][0].path):
            if "qa_data" not in page or not isinstance(page.values["qa_data"], list):
                yield page
                continue
            image = str(page.values.get("image_filename"))
            for pair in page.values["qa_data"]:
                added = {"pair": pair, "number": numbers[image]}
                yield Fields({**page.values, **added}, f"{page.where}, question {numbers[image]}")
                numbers[image] += 1

    def example(self, record: Fields, split: str) -> Example:
        record.items("qa_data")
        image, pair = _image(record), Fields(record.get("pair"), record.where)
        return Example(
            id=f"{image}#{record.label('number')}",
            image=image,
            question=_text(pair, "question"),
            references=(_text(pair, "answer"),),
            ocr=tuple(_words(record)),
        )


def _text(pair: Fields, name: str) -> str:
    return Fields(pair.get(name), f"{pair.where}, '{name}'").text("text")


def _words(page: Fields) -> list[str]:
    """The words of all regions; pictures have none."""
    regions = [region for region in page.records("bounding_boxes") if "ocr_info" in region]
    words = (word.text("word", empty=True) for r in regions for word in r.records("ocr_info"))
    return [word for word in words if word]
