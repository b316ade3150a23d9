"""The one way from the bytes of an image to its pixels, with Pillow and NumPy alone.

Training, evaluation, prediction, the contact sheet and the builders of public datasets all use
`decode` and `size`, so that an image is the same to each of them:

- Formats: `FORMATS`. Others are refused, such as EPS, which Pillow gives to another program.
- Orientation: an image is turned as its EXIF or XMP data say, before sizes, boxes and pixels.
- Depth, palettes, alpha and colour spaces: see `image_modes`.
- Animations and files of several pages: the first frame or page.
- Colour profiles are ignored, as by TensorFlow, torchvision and the processors of `transformers`.
- Damage: an image that ends too early is refused, never filled up. Texts and profiles in a PNG that
  Pillow refuses (too large, damaged) do not matter: the image is read without them.
- Size: at most `max_pixels`. A JPEG of up to four times as many is read at half its width and
  height; `size` still gives the whole ones. Anything larger is refused.

Nothing here changes Pillow's settings or the filters of warnings, which belong to the process:
plugins are opened one by one, as `Image.open` does, but with our own limit in place of its.
"""

import contextlib
import io
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageFile

from omni_smola.data import image_modes
from omni_smola.errors import UserError, first_line

MAX_PIXELS = 64_000_000
# In the order of trying. TGA, which has no signature, comes last.
FORMATS = (
    *("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "PCX", "SGI"),
    *("PSD", "TGA"),
)

_HALVED = 4  # a JPEG of so many times the limit is read at half its sides
_BYTES_A_PIXEL, _SMALL_FILE = 8, 2**26  # of an encoded file: those of 16-bit RGBA, not compressed
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND")
_PNG_ORIENTED = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
# What Pillow's plugins raise where the bytes are of no or another format.
_OTHER_FORMAT = (SyntaxError, IndexError, TypeError, struct.error)
# EXIF orientation -> the displayed image, a view of the stored one of (h, w, 3).
_TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}

T = TypeVar("T")


def decode(encoded: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of an encoded image, as displayed.

    Args:
      encoded: the bytes of a file in one of `FORMATS`.
      max_pixels: see the top of this file.

    Returns:
      (h, w, 3) uint8, RGB.

    Raises:
      UserError: why there are none, as the rest of a sentence that names the file.
    """
    check_bytes(len(encoded), max_pixels)
    return _attempt(lambda file: _decoded(file, max_pixels), io.BytesIO(encoded))


def of_pillow(image: Image.Image, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of a Pillow image, as `decode` gives those of a file."""
    _check_pixels(image, max_pixels)
    try:
        return _turned(image)
    except UserError:
        raise
    except Exception as error:  # one whose file is not yet decoded
        raise UserError(_said(error)) from error


def size(source: bytes | BinaryIO, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) of an image as displayed, from its header.

    Args:
      source: the bytes, or a file opened for reading at its start.
      max_pixels: as for `decode`, which gives less for a JPEG that is read at half its sides.

    Raises:
      UserError: as `decode`, where the header shows it.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    check_bytes(file.seek(0, io.SEEK_END), max_pixels)
    return _attempt(lambda file: _displayed_size(file, max_pixels), file)


def read_file(path: Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of an image file.

    Raises:
      UserError: as `decode`, where they cannot be read.
    """
    with _file(path) as file:
        check_bytes(os.fstat(file.fileno()).st_size, max_pixels)
        return file.read()


def file_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """`size` of an image file, of which only the header is read."""
    with _file(path) as file:
        return size(file, max_pixels)


@contextlib.contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    # A pipe would be waited for. Any name is allowed here, even of no characters or too many.
    if not os.path.isfile(path):
        raise UserError("there is no such file")
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise UserError(f"its file cannot be read ({error.strerror})") from error


def _attempt(read: Callable[[BinaryIO], T], file: BinaryIO) -> T:
    """What `read` gives; of a PNG with metadata that Pillow cannot read, once more without them."""
    try:
        return read(file)
    except UserError:
        raise
    except Exception as error:  # Pillow raises nearly everything there is
        plain = _without_metadata(file)
        if plain is None:
            raise UserError(_said(error)) from error
    try:
        return read(plain)
    except UserError:
        raise
    except Exception as error:
        raise UserError(_said(error)) from error


def _decoded(file: BinaryIO, max_pixels: int) -> np.ndarray:
    image = _opened(file, max_pixels)
    if image.width * image.height > max_pixels:  # a JPEG
        image.draft(None, (image.width // 2, image.height // 2))
    if image.format == "ICO":  # whose header does not bind the image inside
        image.load()
        _check_pixels(image, max_pixels)
    return _turned(image)


def _turned(image: Image.Image) -> np.ndarray:
    pixels = image_modes.rgb(image)
    turned = _TURNED.get(_orientation(image))
    return pixels if turned is None else np.ascontiguousarray(turned(pixels))


def _displayed_size(file: BinaryIO, max_pixels: int) -> tuple[int, int]:
    image = _opened(file, max_pixels)
    if image.format == "ICO" or (image.format == "PNG" and _orientation_comes_late(file)):
        image.load()
        _check_pixels(image, max_pixels)
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


def _opened(file: BinaryIO, max_pixels: int) -> ImageFile.ImageFile:
    """The image, its pixels not yet decoded; of a size that may be."""
    file.seek(0)
    start, reasons = file.read(16), []
    for name in FORMATS:
        if name not in Image.OPEN:
            Image.init()
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or (accept and accept(start) is not True):
            continue
        if accept is None and reasons:  # the signature was another format's
            break
        file.seek(0)
        try:
            image = factory(file, "")
        except _OTHER_FORMAT as error:
            if accept:
                reasons.append(error)
            continue
        _check_pixels(image, max_pixels)
        return image
    if reasons:
        raise reasons[0]
    if not start:
        raise UserError("it is empty, 0 bytes")
    raise UserError(f"it is not an image in a format that is read ({', '.join(FORMATS)})")


def _orientation(image: Image.Image) -> int:
    """1 to 8 as in EXIF; 1 for what is said wrongly, or done already."""
    if image.format == "TIFF":  # turned by Pillow when it is opened and loaded
        return 1
    # Not PngImageFile's, which decodes the pixels to look behind them; see `_displayed_size`.
    with contextlib.suppress(Exception):  # damaged EXIF data are no reason to refuse an image
        found = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
        return found if found in _TURNED else 1
    return 1


def check_bytes(count: int, max_pixels: int = MAX_PIXELS) -> None:
    """Raises UserError, as `decode` does, for an encoded image of too many bytes to be read."""
    most = max(_BYTES_A_PIXEL * max_pixels, _SMALL_FILE)
    if count > most:
        raise UserError(
            f"its file of {count:,} bytes is too large: {most:,} are read at most, "
            f"{_BYTES_A_PIXEL} for each pixel of config.data.max_pixels, {max_pixels:,}"
        )


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise UserError(f"it has {width} x {height} pixels")
    jpeg = image.format in ("JPEG", "MPO")
    if width * height > max_pixels * (_HALVED if jpeg else 1):
        raise UserError(
            f"it has {width} x {height} = {width * height:,} pixels, more than the limit of "
            f"{max_pixels:,}"
            + (f", and more than {_HALVED} times as many, which a JPEG may have" if jpeg else "")
            + ": make it smaller, or raise the limit by --config.data.max_pixels"
        )


def _said(error: Exception) -> str:
    """What Pillow raised, in words."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    plain = isinstance(error, OSError | SyntaxError | ValueError)
    name = "" if plain else f"{type(error).__name__}: "
    return f"its data are damaged ({name}{first_line(error)})"


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, place and length of the data of a PNG's chunks, up to where the file ends."""
    file.seek(0)
    if file.read(8) != _PNG:
        return
    place = 8
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        yield kind, place + 8, length
        place += 12 + length
        file.seek(place)


def _orientation_comes_late(file: BinaryIO) -> bool:
    """Whether a PNG says after its pixels how it is turned."""
    pixels = False
    for kind, place, _ in _chunks(file):
        pixels = pixels or kind == b"IDAT"
        if pixels and kind == b"eXIf":
            return True
        if pixels and kind in (b"tEXt", b"zTXt", b"iTXt"):
            file.seek(place)
            if file.read(24).startswith(_PNG_ORIENTED):
                return True
    return False


def _without_metadata(file: BinaryIO) -> BinaryIO | None:
    """A PNG without what is neither its pixels nor its orientation; None of another format."""
    kept = [chunk for chunk in _chunks(file) if chunk[0] in _PNG_PIXELS]
    if not kept:
        return None
    plain = io.BytesIO()
    plain.write(_PNG)
    for _, place, length in kept:
        file.seek(place - 8)
        plain.write(file.read(length + 12))
    plain.seek(0)
    return plain
