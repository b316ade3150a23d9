"""WikiTableQuestions (Pasupat and Liang, arXiv 1508.00305) of its own repository: tables drawn."""

import functools
from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.drawing import table_image
from omni_smola.data.builders.official.files import Fields, SourceFile, read_rows, read_table
from omni_smola.data.builders.official.images import Made, Read

_PAGE = "https://github.com/ppasupat/WikiTableQuestions"
_FOLDER = "wikitablequestions_tables"
_TABLES = SourceFile(f"{_FOLDER}/csv/", _PAGE)
_NAMES = {
    "train": "random-split-1-train",
    "validation": "random-split-1-dev",
    "test": "pristine-unseen-tables",
}
# The tagged files, which hold the numbers and dates that answers stand for. The validation split is
# a part of the official training set.
_TAGGED = {"validation": "training", "test": "pristine-unseen-tables"}


def _tables(folder: Path) -> dict[str, Read]:
    root = folder / _FOLDER
    paths = (folder / _TABLES.path).glob("*/*.csv")
    return {path.relative_to(root).as_posix(): functools.partial(_drawn, path) for path in paths}


def _drawn(path: Path) -> bytes:
    text = path.read_text(encoding="utf-8", errors="replace")
    # Quotes and backslashes within a cell have a backslash before them.
    rows = read_rows(path, text, doublequote=False, escapechar="\\")
    return table_image([row for _, row in rows if row])


class WikitablequestionsTables(OfficialBuilder):
    """WikiTableQuestions' own files: the repository as wikitablequestions_tables/, of which
    data/random-split-1-{train,dev}.tsv, data/pristine-unseen-tables.tsv and csv/ are read, and
    tagged/data/*.tagged if they are there.

    Splits train, validation and test. The table is drawn as an image: so the task is that of the
    builder `wikitablequestions`, with which papers are compared, on tables that are complete; as
    text, many tables would not fit into a prompt. Scored by denotation, by the official rules for
    numbers and dates where the tagged files are there: a reference for evaluation is then the
    answer, a tab and its canonical form.
    """

    SPLITS = {
        split: (SourceFile(f"{_FOLDER}/data/{name}.tsv", _PAGE),) for split, name in _NAMES.items()
    }
    IMAGES = Made(_FOLDER, (_TABLES,), _tables)

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        columns = ("id", "utterance", "context", "targetValue")
        tagged = folder / _FOLDER / "tagged" / "data" / f"{_TAGGED.get(split)}.tagged"
        canonical = {}
        if tagged.is_file():
            for record in read_table(tagged, ("id", "targetCanon"), "\t"):
                canonical[record.values["id"]] = record.values.get("targetCanon", "")
        for record in read_table(folder / self.SPLITS[split][0].path, columns, "\t"):
            added = {"canonical": canonical.get(record.values["id"], "")}
            yield Fields({**record.values, **added}, record.where)

    def example(self, record: Fields, split: str) -> Example:
        answer, canonical = record.text("targetValue"), record.text("canonical", empty=True)
        return Example(
            id=record.text("id"),
            image=record.text("context"),
            question=" ".join(_unescaped(record.text("utterance")).split()),
            references=(f"{answer}\t{canonical}" if canonical else answer,),
        )


def _unescaped(text: str) -> str:
    return text.replace("\\n", "\n").replace("\\p", "|").replace("\\\\", "\\")
