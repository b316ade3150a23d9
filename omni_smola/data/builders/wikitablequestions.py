"""WikiTableQuestions (Pasupat and Liang, arXiv 1508.00305) as DUE gives it: tables as pages."""

from omni_smola.data.builders.official import due
from omni_smola.data.builders.official.builder import Example
from omni_smola.data.builders.official.files import Fields

_PDFS = due.pdf_folder("wikitablequestions", "WikiTableQuestions")


class Wikitablequestions(due.DueBuilder):
    """WikiTableQuestions of the DUE benchmark, as UReader and MoME use it:
    {train,dev,test}/document.jsonl and pdfs/ in wikitablequestions/, or the two archives of DUE
    unpacked there.

    Splits train, validation and test; the image is the table's (first) page. Scored by denotation;
    the values of an answer are separated by "|".
    """

    SPLITS = due.document_files("wikitablequestions", "WikiTableQuestions")
    PDFS = _PDFS
    IMAGES = due.pages("wikitablequestions", _PDFS)

    def example(self, record: Fields, split: str) -> Example:
        found = due.annotation(record)
        return Example(
            id=found.id,
            image=found.page,
            question=found.key,
            references=due.variants([list(map(_escaped, value)) for value in found.values]),
        )


def _escaped(text: str) -> str:
    """A value as the official tables write it, so that "|" and line breaks in it are its own."""
    return text.replace("\\", "\\\\").replace("|", "\\p").replace("\n", "\\n")
