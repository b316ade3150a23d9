"""What the modes of a decoded image mean in RGB: depth, palettes, alpha, colour spaces.

- Palettes, 1 bit, CMYK (of JPEGs by Adobe, too), YCbCr and HSV: as Pillow converts them.
- Lab: converted to sRGB with LittleCMS.
- 16-bit grey and colour: the high byte, so that 65535 is 255, as libpng and TensorFlow do. In a
  TIFF of 12 bits, 4095 is 255.
- Integers of 32 bits are read as 16-bit grey, 0 to 65535. Where that cannot be meant the image is
  refused: values outside of that range, or none above 255. So are signed integers of 16 bits.
- Floats are read from 0.0, black, to 1.0, white. Others are refused: their range is unknown.
- Alpha, a transparent entry of a palette, a colour that counts as transparent: blended on white,
  the colour of paper and of the pages that such images are made for. What lies under full
  transparency is arbitrary, often black, and black writing would vanish in it.
"""

import functools

import numpy as np
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

from omni_smola.errors import UserError

_STRIP = 2**22  # pixels converted at once, which bounds the memory that a large image takes
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_WHITE_IS_ZERO = 0  # a value of the TIFF tag PhotometricInterpretation


def rgb(image: Image.Image) -> np.ndarray:
    """Decodes an opened image, or one in memory: (h, w, 3) uint8, as stored, not turned.

    Raises:
      UserError: the range of its values cannot be known.
    """
    key = _transparent(image)  # known before the pixels, as is how many bits they have
    image.load()
    if image.mode in ("I", "F"):
        _check_range(image)
    rows = max(1, _STRIP // image.width)
    if rows >= image.height:
        return _converted(image, image, key)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        part = image.crop((0, top, image.width, bottom))
        pixels[top:bottom] = _converted(part, image, key)
    return pixels


def _converted(part: Image.Image, whole: Image.Image, key: tuple[int, ...] | None) -> np.ndarray:
    """Some rows of `whole` as (h, w, 3) uint8; key: the stored colour that is transparent."""
    if part.mode in (*_SIXTEEN, "I", "F"):
        return np.repeat(_grey(part, whole, key)[..., np.newaxis], 3, axis=2)
    if part.mode in _ALPHA or (part.mode == "P" and part.has_transparency_data):
        return _on_white(np.asarray(part.convert("RGBA")))
    if part.mode == "LAB":
        return np.asarray(ImageCms.applyTransform(part, _lab_to_srgb()))
    pixels = np.asarray(part if part.mode == "RGB" else part.convert("RGB"))
    if key is None:
        return pixels
    return np.where((pixels == key).all(axis=2, keepdims=True), np.uint8(255), pixels)


def _transparent(image: Image.Image) -> tuple[int, ...] | None:
    """The colour that is transparent: (value,) of 16-bit grey, (r, g, b) of what has 8 bits."""
    key = image.info.get("transparency")
    tile = getattr(image, "tile", None)  # of an image in memory there is none
    rawmode = str(tile[0].args) if tile else ""
    if image.mode in _SIXTEEN and isinstance(key, int):
        return (key,)
    if image.mode == "RGB" and isinstance(key, tuple):
        # The low byte of 16-bit colours is not decoded.
        return tuple(value >> 8 if ";16" in rawmode else value & 255 for value in key)
    if image.mode in ("1", "L") and isinstance(key, int):
        most = {"L;2": 3, "L;4": 15}.get(rawmode, 255)  # PNG counts in the stored values
        return ((key & most) * (255 // most),) * 3
    return None


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """(h, w, 4) uint8, the last one alpha -> (h, w, 3), rounded to nearest."""
    colour, alpha = pixels[..., :3], pixels[..., 3:].astype(np.uint16)
    if alpha.min() == 255:
        return np.ascontiguousarray(colour)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _grey(part: Image.Image, whole: Image.Image, key: tuple[int, ...] | None) -> np.ndarray:
    """Grey of more than 8 bits: (h, w) uint8."""
    values, tags = np.asarray(part), getattr(whole, "tag_v2", {})
    if part.mode == "F":
        if not np.isfinite(values).all():
            raise UserError("it holds values that are not finite (NaN or infinity)")
        grey = np.rint(values * 255).astype(np.uint8)
    else:
        bits = tags.get(BITSPERSAMPLE, (16,))[0] if part.mode in _SIXTEEN else 16
        grey = (values >> (bits - 8)).astype(np.uint8)
    if tags.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
        grey = 255 - grey
    return grey if key is None else np.where(values == key[0], np.uint8(255), grey)


def _check_range(image: Image.Image) -> None:
    """Refuses 32-bit integers and floats that may mean anything."""
    low, high = image.getextrema()
    if image.mode == "F":
        if low < 0 or high > 1:
            raise UserError(
                f"it holds floats from {low:g} to {high:g}, but floats are read from 0 (black) to "
                "1 (white): divide them, or save the image with 8 or 16 bits"
            )
        return
    # A PGM of more than 8 bits was scaled to 16; others say nothing of their range.
    scaled = image.format == "PPM"
    signed = getattr(image, "tag_v2", {}).get(BITSPERSAMPLE) == (16,)
    least = 0 if scaled else 65536 if signed else 256
    if low < 0 or high > 65535 or 0 < high < least:
        raise UserError(
            f"it holds {'signed integers of 16' if signed else 'integers of 32'} bits from {low} "
            f"to {high}, whose range is unknown: save the image with 8 bits, or with 16 bits from "
            "0 (black) to 65535 (white)"
        )


@functools.cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(*profiles, "LAB", "RGB")
