"""TabFact (Chen et al., arXiv 1909.02164) as DUE gives it: does a statement hold for a table?"""

from omni_smola.data.builders.official import due
from omni_smola.data.builders.official.builder import Example
from omni_smola.data.builders.official.files import Fields

_PDFS = due.pdf_folder("tabfact", "TabFact")
_VERDICTS = {"1": "yes", "0": "no"}


class Tabfact(due.DueBuilder):
    """TabFact of the DUE benchmark, as UReader and MoME use it: {train,dev,test}/document.jsonl
    and pdfs/ in tabfact/, or the two archives of DUE unpacked there.

    Splits train, validation and test; the image is the table's page, the question the statement
    alone. Scored by the label, "1" for yes and "0" for no, in all and by the group simple or
    complex where a document says so. The official PDFs lack some documents of the test split.
    """

    SPLITS = due.document_files("tabfact", "TabFact")
    PDFS = _PDFS
    IMAGES = due.pages("tabfact", _PDFS)
    WITHOUT_PAGES = ("test",)

    def example(self, record: Fields, split: str) -> Example:
        found = due.annotation(record)
        labels = [value[0] for value in found.values]
        if len(labels) != 1 or labels[0] not in _VERDICTS:
            raise record.bad(f"a statement must have the one value '0' or '1', but has {labels}.")
        metadata = record.values.get("metadata") or {}
        return Example(
            id=found.id,
            image=found.page,
            question=found.key,
            references=(_VERDICTS[labels[0]],),
            groups=Fields(metadata, record.where).text("channel_type") if metadata else "",
        )
