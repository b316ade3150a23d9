"""The layout of the Document Understanding benchmark (DUE; Borchmann et al., 2021).

A dataset has {train,dev,test}/document.jsonl with a document a line, {name, annotations: [{id, key,
values: [{value, value_variants}]}], split}, and a PDF per document. The key is the question, or the
name of a field. Of a PDF the first page is read, as UReader does.
"""

import dataclasses
import functools
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import OfficialBuilder
from omni_smola.data.builders.official.either import Either
from omni_smola.data.builders.official.files import BadRecord, Fields, read_jsonl
from omni_smola.data.builders.official.images import Made, Read
from omni_smola.data.builders.official.pdf import first_page

_PAGE = "https://duebenchmark.com/data"
_NAMES = {"train": "train", "validation": "dev", "test": "test"}


def document_files(folder: str, archive: str) -> dict[str, tuple[Either]]:
    """The files of each split, in `folder` or as the archive of DUE unpacks there."""
    inside = f"{folder}/aws_neurips_time/{archive}"
    return {
        split: (
            Either(
                f"{folder}/{name}/document.jsonl",
                f"datasets/{archive}.tar.gz at {_PAGE}",
                (f"{inside}/{name}/document.jsonl",),
            ),
        )
        for split, name in _NAMES.items()
    }


def pdf_folder(folder: str, archive: str) -> Either:
    """The folder of the PDFs: pdfs/, or as the archive of DUE unpacks."""
    return Either(f"{folder}/pdfs/", f"pdfs/{archive}.tar.gz at {_PAGE}", (f"{folder}/{archive}/",))


def pages(name: str, pdfs: Either) -> Made:
    """The collection of the first pages, by the names of the documents."""

    def make(folder: Path) -> dict[str, Read]:
        paths = sorted(pdfs.found(folder).glob("*.pdf"))
        return {path.stem: functools.partial(first_page, path) for path in paths}

    return Made(name, (pdfs,), make)


class DueBuilder(OfficialBuilder, skip_registration=True):
    """A dataset of DUE.

    Attributes:
      PDFS: the folder of its PDFs.
      WITHOUT_PAGES: the splits of which the official PDFs are incomplete. There a document without
        one is asked about without an image, so that no question of the benchmark is missing.
    """

    PDFS: Either
    WITHOUT_PAGES: tuple[str, ...] = ()

    def documents(self, folder: Path, split: str) -> Iterator[Fields]:
        """The documents of a split, with `page`: the key of its image, or None."""
        pdfs = self.PDFS.found(folder)
        lacking = 0
        for document in read_jsonl(self.SPLITS[split][0].found(folder)):
            if "name" in document and isinstance(document.values["name"], str):
                name = page = document.values["name"].strip().removesuffix(".pdf")
                if split in self.WITHOUT_PAGES and pdfs and not (pdfs / f"{name}.pdf").is_file():
                    page, lacking = None, lacking + 1
                values = {**document.values, "name": name, "page": page}
                document = Fields(values, document.where)
            yield document
        if lacking:
            print(
                f"{self.name}/{split}: {lacking} documents have no PDF in {pdfs}; their questions "
                "are asked without an image.",
                file=sys.stderr,
                flush=True,
            )

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        """A record per annotation: the document's fields, and `annotation`."""
        for document in self.documents(folder, split):
            try:
                annotations = document.records("annotations")
            except BadRecord:  # example() tells it
                yield document
                continue
            for annotation in annotations:
                values = {**document.values, "annotation": annotation.values}
                yield Fields(values, annotation.where)


@dataclasses.dataclass(frozen=True)
class Annotation:
    """What a document is asked and answers.

    Attributes:
      id: ours, "{document}/{annotation}": the benchmark's server wants whole documents back, each
        with its keys, so that a record is found by the two.
      page: key of the image, or None. key: the question.
      values: the values of the key, each the list of what is accepted for it, the value first.
    """

    id: str
    page: str | None
    key: str
    values: list[list[str]]


def annotation(record: Fields) -> Annotation:
    """The annotation of a record of `DueBuilder.records`; raises BadRecord."""
    record.items("annotations")
    name = record.text("name")
    fields = Fields(record.get("annotation"), record.where)
    return Annotation(
        id=f"{name}/{fields.label('id')}",
        page=record.get("page"),
        key=fields.text("key"),
        values=accepted(fields),
    )


def accepted(fields: Fields) -> list[list[str]]:
    """Per value of an annotation what is accepted for it; the value itself comes first."""
    found = []
    for value in fields.records("values"):
        variants = value.texts("value_variants", at_least=0) if "value_variants" in value else []
        found.append(list(dict.fromkeys([value.label("value"), *variants])))
    return found


def variants(values: list[list[str]]) -> tuple[str, ...]:
    """The references of several values: "first|second", once per variant, in the same order."""
    rows = itertools.zip_longest(*values)
    return tuple(
        "|".join(
            value[0] if text is None else text for text, value in zip(row, values, strict=True)
        )
        for row in rows
    )
