"""DeepForm (Svetlichnaya, 2020) as DUE gives it: fields of receipts for political TV ads."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official import due
from omni_smola.data.builders.official.builder import Example
from omni_smola.data.builders.official.files import Fields
from omni_smola.errors import UserError
from omni_smola.metrics.due_f1 import ABSENT

FIELDS = ("advertiser", "contract_num", "flight_from", "flight_to", "gross_amount")

_PDFS = due.pdf_folder("deepform", "DeepForm")


class Deepform(due.DueBuilder):
    """DeepForm of the DUE benchmark, as UReader and MoME use it: {train,dev,test}/document.jsonl
    and pdfs/ in deepform/, or the two archives of DUE unpacked there.

    Splits train, validation and test, with five questions a document, one for each of FIELDS; the
    image is the first page. The answer for a field that the annotations do not have is "None".
    Scored by the F1 of (document, field, value), in all and by field.
    """

    SPLITS = due.document_files("deepform", "DeepForm")
    PDFS = _PDFS
    IMAGES = due.pages("deepform", _PDFS)

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        """A record per document and field: the document's fields, and `field`."""
        annotated = False
        for document in self.documents(folder, split):
            if not isinstance(document.values, dict):
                yield document
                continue
            annotated = annotated or bool(document.values.get("annotations"))
            for field in FIELDS:
                yield Fields({**document.values, "field": field}, document.where)
        if not annotated:
            raise UserError(
                f"{self.SPLITS[split][0].found(folder)} has no annotation at all, so that every "
                "field would count as absent: it is not the annotated file of DUE."
            )

    def example(self, record: Fields, split: str) -> Example:
        field = record.get("field")
        values = []
        for found in record.records("annotations"):
            key = found.text("key")
            if key not in FIELDS:
                raise found.bad(f"the key {key!r} is none of {', '.join(FIELDS)}.")
            if key == field:
                values += due.accepted(found)
        if any("|" in text for value in values for text in value):
            raise record.bad(f"a value of '{field}' holds '|', which separates values.")
        name = record.text("name")
        return Example(
            id=f"{name}/{field}",
            image=record.get("page"),
            question=f"What is the value for the {field}?",
            references=due.variants(values) or (ABSENT,),
            groups=field,
        )
