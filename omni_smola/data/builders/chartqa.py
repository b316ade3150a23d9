"""ChartQA (Masry et al., arXiv 2203.10244): questions on charts, by people and by machine."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import Fields, SourceFile, read_list
from omni_smola.data.builders.official.images import Made, Read
from omni_smola.errors import UserError

_PAGE = "https://github.com/vis-nlp/ChartQA"
_NAMES = {"train": "train", "validation": "val", "test": "test"}
_HALVES = ("human", "augmented")


def _charts(folder: Path) -> dict[str, Read]:
    """ "{split}/{name}" -> how to read it: a name may be another chart in another split."""
    found = {
        f"{name}/{path.stem}": path.read_bytes
        for name in _NAMES.values()
        for path in sorted((folder / "chartqa" / name / "png").glob("*.png"))
    }
    if not found:
        raise UserError(
            f"There is no chart in {folder / 'chartqa'}/{{train,val,test}}/png/: put there the "
            f"folders of {_PAGE}."
        )
    return found


class Chartqa(OfficialBuilder):
    """ChartQA: {train,val,test}/{split}_human.json, {split}_augmented.json and png/ in chartqa/,
    which is the folder "ChartQA Dataset" of the repository.

    Splits train, validation and test. An answer is one string, also where it lists several values;
    scored by relaxed accuracy, as the mean of the groups human and augmented. Questions have no
    identifier: ours is the group and the number in its file, from 0.
    """

    SPLITS = {
        split: tuple(SourceFile(f"chartqa/{name}/{name}_{half}.json", _PAGE) for half in _HALVES)
        for split, name in _NAMES.items()
    }
    IMAGES = Made("chartqa", (), _charts)

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        for half, file in zip(_HALVES, self.SPLITS[split], strict=True):
            for number, record in enumerate(read_list(folder / file.path)):
                if isinstance(record.values, dict):
                    added = {"half": half, "number": number}
                    record = Fields({**record.values, **added}, record.where)
                yield record

    def example(self, record: Fields, split: str) -> Example:
        half = record.text("half")
        return Example(
            id=f"{half}-{record.label('number')}",
            image=f"{_NAMES[split]}/{Path(record.text('imgname')).stem}",
            question=record.text("query"),
            references=(record.label("label"),),
            groups=half,
        )
