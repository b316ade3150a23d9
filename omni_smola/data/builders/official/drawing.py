"""Images read and drawn on: letters over the labels of a diagram, tables as pictures.

The font is DejaVu Sans, which Matplotlib brings along: Latin, Greek and Cyrillic letters, phonetic
and mathematical signs; Chinese and Japanese characters come out as boxes.
"""

import functools
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from omni_smola.data import images
from omni_smola.data.builders.official.files import BadRecord
from omni_smola.errors import UserError

_SIZE = 16  # of a table's text, in pixels
_LINE = 20
_PAD = 6
_WIDEST = 280  # of a column; longer texts are broken into lines
_HEAD = (228, 228, 228)
_RULE = (150, 150, 150)
_MEASURED_AT = 100


@functools.cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font at a size in pixels."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def opened(path: Path) -> Image.Image:
    """An image file in RGB, as displayed, to be drawn on.

    Raises:
      BadRecord: it cannot be read.
    """
    try:
        return Image.fromarray(images.decode(images.read_file(path)))
    except UserError as error:
        raise BadRecord(f"{path} is no image that can be read: {error}.") from error


def encoded(image: Image.Image) -> bytes:
    """The image as a PNG."""
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()


def cover(image: Image.Image, box: tuple[int, int, int, int], text: str) -> None:
    """Covers `box` = (x1, y1, x2, y2) of an RGB image in white and writes `text` in it in black, as
    large as fits."""
    draw = ImageDraw.Draw(image)
    draw.rectangle(box, fill="white")
    x1, y1, x2, y2 = font(_MEASURED_AT).getbbox(text)
    width, height = max(box[2] - box[0], 1), max(box[3] - box[1], 1)
    fitted = int(_MEASURED_AT * min(width / max(x2 - x1, 1), height / max(y2 - y1, 1)))
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    draw.text(middle, text, fill="black", font=font(max(fitted, 1)), anchor="mm")


def table_image(rows: Sequence[Sequence[str]], title: str = "") -> bytes:
    """A table as a PNG: the title, the first row as a header, and lines between all cells.

    Args:
      rows: the cells; rows may be of unequal length.
      title: above the table.
    """
    columns = max(map(len, rows), default=1)
    cells = [[_broken(text, i == 0) for text in row] for i, row in enumerate(rows)]
    widths = [
        max(
            (_width(cell, i == 0) for i, row in enumerate(cells) for cell in row[j : j + 1]),
            default=0,
        )
        for j in range(columns)
    ]
    heights = [max((len(cell) for cell in row), default=1) * _LINE + 2 * _PAD for row in cells]
    widths = [width + 2 * _PAD for width in widths]
    head = _LINE + 2 * _PAD if title else 0
    wanted = _width([title], True) + 2 * _PAD if title else 0
    width = max(sum(widths), wanted) + 1
    image = Image.new("RGB", (width, head + sum(heights) + 1), "white")
    draw = ImageDraw.Draw(image)
    draw.text((_PAD, _PAD), title, fill="black", font=font(_SIZE, True))
    y = head
    for i, (row, height) in enumerate(zip(cells, heights, strict=True)):
        x = 0
        for j, wide in enumerate(widths):
            draw.rectangle((x, y, x + wide, y + height), None if i else _HEAD, _RULE)
            text = "\n".join(row[j]) if j < len(row) else ""
            spacing = _LINE - _SIZE
            at = (x + _PAD, y + _PAD)
            draw.multiline_text(at, text, fill="black", font=font(_SIZE, i == 0), spacing=spacing)
            x += wide
        y += height
    return encoded(image)


def _width(lines: Sequence[str], bold: bool) -> int:
    return max((int(font(_SIZE, bold).getlength(line)) + 1 for line in lines), default=0)


def _broken(text: str, bold: bool) -> list[str]:
    """The text in lines no wider than a column, broken at spaces, or anywhere in a long word."""
    lines = []
    for paragraph in text.splitlines() or [""]:
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if not line or _width([joined], bold) <= _WIDEST:
                line = joined
            else:
                lines.append(line)
                line = word
            while _width([line], bold) > _WIDEST:
                kept = next(
                    n
                    for n in range(len(line), 0, -1)
                    if n == 1 or _width([line[:n]], bold) <= _WIDEST
                )
                lines.append(line[:kept])
                line = line[kept:]
        lines.append(line)
    return lines
