"""SciCap (Hsu et al., arXiv 2110.11624): captions of the graph plots of arXiv papers."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.coco_captions import image_key
from omni_smola.data.builders.official.files import (
    BadRecord,
    Fields,
    SourceFile,
    read_json,
    read_list,
)
from omni_smola.data.builders.official.images import Folders
from omni_smola.errors import UserError

_ORIGIN = "scicap_data.zip of https://github.com/tingyaohsu/SciCap"
_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_FIGURES = "scicap/SciCap-Caption-All"
_CAPTION = "1-lowercase-and-token-and-remove-figure-index"


def _files(split: str) -> tuple[SourceFile, ...]:
    lists = "scicap/List-of-Files-for-Each-Experiments/First-Sentence/No-Subfig"
    return (
        SourceFile(f"{lists}/{split}/file_idx.json", _ORIGIN),
        SourceFile(f"{_FIGURES}/{split}/", _ORIGIN),
    )


class Scicap(OfficialBuilder):
    """SciCap: the folders of scicap_data.zip in scicap/.

    SciCap-Caption-All, SciCap-No-Subfig-Img and List-of-Files-for-Each-Experiments, of which the
    list First-Sentence/No-Subfig is read: 106,834, 13,354 and 13,355 figures. The reference is the
    caption in lower case, in tokens and without the figure's number, as the PaLI family scores it
    (CIDEr on test); the id is the file's name without ".png".
    """

    SPLITS = {ours: _files(theirs) for ours, theirs in _SPLITS.items()}
    IMAGES = Folders(
        "scicap",
        tuple(
            SourceFile(f"scicap/SciCap-No-Subfig-Img/{split}/", _ORIGIN)
            for split in _SPLITS.values()
        ),
    )

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        listed, figures = self.SPLITS[split]
        for name in read_list(folder / listed.path):
            yield Fields({"file": name.values, "figures": str(folder / figures.path)}, name.where)

    def example(self, record: Fields, split: str) -> Example:
        figure = image_key(record, "file")
        path = Path(record.text("figures")) / f"{figure}.json"
        try:
            fields = Fields(read_json(path), str(path))
        except UserError as error:  # one figure of many: no reason to give up the split
            raise BadRecord(str(error)) from error
        caption = Fields(fields.get(_CAPTION), f"{path}, '{_CAPTION}'").text("caption")
        return Example(id=figure, image=figure, references=(caption,))
