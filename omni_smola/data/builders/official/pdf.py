"""Pages of PDF files as images."""

from pathlib import Path
from types import ModuleType

from omni_smola.errors import UserError

RESOLUTION = 150  # dots an inch
LONGEST = 4096  # pixels of a side: some PDFs are posters


def first_page(path: Path) -> bytes:
    """The first page as an encoded PNG.

    Raises:
      UserError: it is no readable PDF, or the package that reads PDFs is missing.
    """
    from omni_smola.data.builders.official.drawing import encoded

    pdfium = _pdfium()
    try:
        with pdfium.PdfDocument(path) as document:
            page = document[0]
            scale = min(RESOLUTION / 72, LONGEST / max(page.get_size()))
            return encoded(page.render(scale=scale).to_pil().convert("RGB"))
    except (pdfium.PdfiumError, IndexError, ZeroDivisionError) as error:
        raise UserError(
            f"{path} is not a PDF with a page ({error}): download it again, or take it away and "
            "leave out its questions by --config.data.on_error=skip."
        ) from error


def _pdfium() -> ModuleType:
    try:
        import pypdfium2
    except ImportError as error:
        raise UserError(
            "Reading the pages of PDF files needs pypdfium2: pip install 'omni_smola[pdf]'."
        ) from error
    return pypdfium2
