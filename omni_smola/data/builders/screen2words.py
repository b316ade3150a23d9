"""Screen2Words (Wang et al., arXiv 2108.03353): summaries of the screens of Android apps."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official import rico
from omni_smola.data.builders.official.builder import Example, OfficialBuilder, grouped
from omni_smola.data.builders.official.chosen_images import Chosen
from omni_smola.data.builders.official.files import Fields, SourceFile, read_table

_PAGE = "https://github.com/google-research-datasets/screen2words"
_SUMMARIES = SourceFile("screen2words/screen_summaries.csv", _PAGE)
_LISTS = {
    ours: SourceFile(f"screen2words/split/{theirs}_screens.txt", _PAGE)
    for ours, theirs in {"train": "train", "validation": "dev", "test": "test"}.items()
}


def _keys(folder: Path) -> Iterator[str]:
    for file in _LISTS.values():
        if file.is_in(folder):
            yield from rico.screen_ids(folder / file.path)


class Screen2words(OfficialBuilder):
    """Screen2Words: screen_summaries.csv and split/ in screen2words/, screens in rico/combined/.

    Splits train, validation and test (15,743, 2,364 and 4,310 screens); one example a screen, its
    id RICO's; CIDEr against all five summaries.
    """

    SPLITS = {split: (_SUMMARIES, file) for split, file in _LISTS.items()}
    IMAGES = Chosen("screen2words", (rico.SCREENS,), keys=_keys)

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        rows = read_table(folder / _SUMMARIES.path, ("screenId", "summary"))
        of_screen = {}
        for record in grouped(rows, "screenId", "rows"):
            screen = record.values.get("screenId", "").strip()
            if screen:
                of_screen[screen] = record
            else:
                yield record  # of no screen and so of no split: a mistake, whatever is built
        path = folder / _LISTS[split].path
        for screen in rico.screen_ids(path):
            nothing = Fields({"screenId": screen, "rows": []}, f"{path}, screen {screen}")
            yield of_screen.get(screen, nothing)

    def example(self, record: Fields, split: str) -> Example:
        screen = record.text("screenId")
        references = tuple(row.text("summary") for row in record.records("rows"))
        return Example(id=screen, image=screen, references=references)
