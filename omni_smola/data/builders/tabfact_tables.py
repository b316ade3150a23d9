"""TabFact (Chen et al., arXiv 1909.02164) of its own repository: tables drawn as images."""

import csv
import functools
from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.drawing import table_image
from omni_smola.data.builders.official.files import (
    Fields,
    SourceFile,
    read_dict,
    read_json,
    read_rows,
)
from omni_smola.data.builders.official.images import Made, Read

_PAGE = "https://github.com/wenhuchen/Table-Fact-Checking"
_NAMES = {"train": "train", "validation": "val", "test": "test"}
_TABLES = SourceFile("tabfact_tables/data/all_csv/", _PAGE)
_GROUPS = ("simple", "complex", "small")


def _statements(name: str) -> SourceFile:
    return SourceFile(f"tabfact_tables/tokenized_data/{name}_examples.json", _PAGE)


def _tables(folder: Path) -> dict[str, Read]:
    """Table -> how to draw it, its caption above."""
    captions: dict[str, str] = {}
    for name in _NAMES.values():
        path = folder / _statements(name).path
        for table, record in read_dict(path) if path.is_file() else ():
            if isinstance(record.values, list) and len(record.values) == 3:
                captions[table] = str(record.values[2])
    return {
        path.name: functools.partial(_drawn, path, captions.get(path.name, ""))
        for path in (folder / _TABLES.path).glob("*.csv")
    }


def _drawn(path: Path, caption: str) -> bytes:
    text = path.read_text(encoding="utf-8", errors="replace")
    rows = read_rows(path, text, delimiter="#", quoting=csv.QUOTE_NONE)
    return table_image([row for _, row in rows if row], caption)


class TabfactTables(OfficialBuilder):
    """TabFact's own files: the repository as tabfact_tables/, of which
    tokenized_data/{train,val,test}_examples.json, data/all_csv/ and
    data/{simple,complex,small}_test_id.json are read.

    Splits train, validation and test; the question is the statement alone, the answer yes or no.
    The table is drawn as an image, its caption above: so the task is that of the builder `tabfact`,
    with which papers are compared, on tables that are complete; as text, most tables would not fit
    into a prompt. Scored in all and on the test split by the groups simple, complex and small, the
    part that people were tested on. Statements have no identifier: ours is the table and the number
    of the statement, from 0.
    """

    SPLITS = {
        "train": (_statements("train"),),
        "validation": (_statements("val"),),
        "test": (
            _statements("test"),
            *(SourceFile(f"tabfact_tables/data/{g}_test_id.json", _PAGE) for g in _GROUPS),
        ),
    }
    IMAGES = Made("tabfact_tables", (_TABLES,), _tables)

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        statements, *listed = (folder / file.path for file in self.SPLITS[split])
        tables = {path.name.partition("_")[0]: set(read_json(path)) for path in listed}
        for table, record in read_dict(statements):
            groups = " ".join(group for group, names in tables.items() if table in names)
            values = record.values
            if not isinstance(values, list) or len(values) != 3 or not _paired(*values[:2]):
                yield Fields({"table": table}, record.where)
                continue
            for i, (statement, label) in enumerate(zip(*values[:2], strict=True)):
                fields = {"table": table, "statement": statement, "label": label, "number": i}
                yield Fields(fields | {"groups": groups}, f"{record.where}, statement {i}")

    def example(self, record: Fields, split: str) -> Example:
        if "statement" not in record:
            raise record.bad("it is not [statements, labels, caption] with a label per statement.")
        table = record.text("table")
        return Example(
            id=f"{table}#{record.label('number')}",
            image=table,
            question=record.text("statement"),
            references=("yes" if record.integer("label", most=1) else "no",),
            groups=record.text("groups", empty=True),
        )


def _paired(statements: object, labels: object) -> bool:
    both = isinstance(statements, list) and isinstance(labels, list)
    return both and len(statements) == len(labels)
