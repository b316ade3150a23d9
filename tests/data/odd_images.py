"""Images of one size in many formats, each with the pixels that it must decode to.

The containers are written by Pillow or, where it cannot, byte by byte from their specifications;
the pixels come from NumPy alone.
"""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

SIDE = 24
Case = tuple[bytes, np.ndarray, int]  # encoded, (SIDE, SIDE, 3) uint8, the largest error allowed

_RNG = np.random.default_rng(7)
_ACROSS, _DOWN = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
RGB = np.stack([_ACROSS * 11, _DOWN * 11, (_ACROSS + _DOWN) * 5], axis=2).astype(np.uint8)
NOISE = _RNG.integers(0, 256, (SIDE, SIDE, 4), np.uint8)
GREY = (_ACROSS * 8 + _DOWN * 3).astype(np.uint8)
GREY_16 = (_ACROSS * 2000 + _DOWN * 800 + 1).astype(np.uint16)
_PALETTE = _RNG.integers(0, 256, (256, 3), np.uint8)
_ORIENTED = {
    1: RGB,
    2: np.fliplr(RGB),
    3: np.rot90(RGB, 2),
    4: np.flipud(RGB),
    5: RGB.transpose(1, 0, 2),
    6: np.rot90(RGB, -1),
    7: np.rot90(RGB, 2).transpose(1, 0, 2),
    8: np.rot90(RGB, 1),
}


def pillow(pixels: np.ndarray | Image.Image, form: str, **options: Any) -> bytes:
    """An image as Pillow saves it."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    rows: np.ndarray | bytes,
    colour: int,
    depth: int = 8,
    before: bytes = b"",
    after: bytes = b"",
    size: tuple[int, int] = (SIDE, SIDE),
) -> bytes:
    """A PNG of rows of whole bytes; colour: the type, 0 grey, 2 RGB, 3 palette, +4 alpha."""
    lines = np.frombuffer(rows.tobytes() if isinstance(rows, np.ndarray) else rows, np.uint8)
    lines = np.pad(lines.reshape(size[1], -1), [(0, 0), (1, 0)])
    head = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(lines.tobytes()))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + body + after + chunk(b"IEND", b"")


def exif(orientation: int) -> bytes:
    """EXIF data that say nothing but how the image is turned."""
    return b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">HHI", orientation, 0, 0)


def tiff(data: bytes, bits: int, photometric: int, order: str = "<", form: int = 1) -> bytes:
    """A TIFF of one strip and one sample a pixel; form: 1 unsigned, 2 signed, 3 float."""
    tags = [
        *((256, SIDE), (257, SIDE), (258, bits), (259, 1), (262, photometric), (273, 8)),
        *((277, 1), (278, SIDE), (279, len(data)), (339, form)),
    ]
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    at = struct.pack(f"{order}I", 8 + len(data))
    return mark + at + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def _packed(values: np.ndarray, depth: int) -> bytes:
    """Values of `depth` bits, several in a byte, the first in the highest bits."""
    bits = (values[..., np.newaxis] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(SIDE, -1), axis=1).tobytes()


def _three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey.astype(np.uint8)[..., np.newaxis], 3, axis=2)


def _paletted(index: np.ndarray) -> Image.Image:
    image = Image.frombytes("P", (SIDE, SIDE), index.tobytes())
    image.putpalette(_PALETTE.tobytes())
    return image


def _white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Blended on white, rounded to nearest."""
    share = alpha.astype(float)[..., np.newaxis] / 255
    return np.floor(colour * share + 255 * (1 - share) + 0.5).astype(np.uint8)


def _pngs() -> dict[str, Case]:
    big = GREY_16.astype(">u2")
    noise_16 = (NOISE.astype(np.uint16) * 256 + NOISE[::-1]).astype(">u2")
    grey_noise, alpha = NOISE[..., 0], NOISE[..., 3]
    index = NOISE[..., 0]
    plte, few = chunk(b"PLTE", _PALETTE.tobytes()), index % 4
    alphas = np.arange(256, dtype=np.uint8)
    cases: dict[str, tuple[bytes, np.ndarray]] = {
        "rgb": (png(RGB, 2), RGB),
        "rgba": (png(NOISE, 6), _white(NOISE[..., :3], alpha)),
        "grey": (png(GREY, 0), _three(GREY)),
        "grey-alpha": (png(NOISE[..., 2:], 4), _white(_three(NOISE[..., 2]), alpha)),
        "grey16": (png(big, 0, 16), _three(GREY_16 >> 8)),
        "rgb16": (png(noise_16[..., :3], 2, 16), NOISE[..., :3]),
        "rgba16": (png(noise_16, 6, 16), _white(NOISE[..., :3], alpha)),
        "grey-alpha16": (png(noise_16[..., 2:], 4, 16), _white(_three(NOISE[..., 2]), alpha)),
        "palette": (png(index, 3, 8, plte), _PALETTE[index]),
        "palette-alpha": (
            png(index, 3, 8, plte + chunk(b"tRNS", alphas.tobytes())),
            _white(_PALETTE[index], alphas[index]),
        ),
        "palette-short-alpha": (
            png(few, 3, 8, plte + chunk(b"tRNS", b"\xff\x00\x80")),
            _white(_PALETTE[few], np.array([255, 0, 128, 255])[few]),
        ),
        "palette-one-transparent": (
            png(few, 3, 8, plte + chunk(b"tRNS", b"\xff\xff\x00")),
            _white(_PALETTE[few], np.array([255, 255, 0, 255])[few]),
        ),
    }
    for depth in (1, 2, 4):
        values = index % 2**depth
        scaled = values * (255 // (2**depth - 1))
        cases[f"grey{depth}"] = (png(_packed(values, depth), 0, depth), _three(scaled))
        key = chunk(b"tRNS", struct.pack(">H", 1))
        keyed = np.where(values == 1, 255, scaled)
        cases[f"grey{depth}-key"] = (png(_packed(values, depth), 0, depth, key), _three(keyed))
        cases[f"palette{depth}"] = (png(_packed(values, depth), 3, depth, plte), _PALETTE[values])
    key = chunk(b"tRNS", struct.pack(">H", grey_noise[3, 4]))
    keyed = np.where(grey_noise == grey_noise[3, 4], 255, grey_noise)
    cases["grey-key"] = (png(grey_noise, 0, 8, key), _three(keyed))
    key = chunk(b"tRNS", struct.pack(">H", GREY_16[3, 4]))
    keyed = np.where(GREY_16 == GREY_16[3, 4], 255, GREY_16 >> 8)
    cases["grey16-key"] = (png(big, 0, 16, key), _three(keyed))
    key = chunk(b"tRNS", struct.pack(">HHH", *RGB[3, 4]))
    keyed = RGB.copy()
    keyed[3, 4] = 255
    cases["rgb-key"] = (png(RGB, 2, 8, key), keyed)
    key = chunk(b"tRNS", struct.pack(">HHH", *(257 * int(v) for v in RGB[3, 4])))
    cases["rgb16-key"] = (png(RGB.astype(">u2") * 257, 2, 16, key), keyed)
    cases["oriented-late"] = (png(RGB, 2, after=chunk(b"eXIf", exif(6))), _ORIENTED[6])
    packet = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="8"/>'
    cases["oriented-by-xmp"] = (png(RGB, 2, before=chunk(b"iTXt", packet)), _ORIENTED[8])
    text = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(2 << 20)))
    cases["text"] = (png(RGB, 2, before=text), RGB)
    cases["text-late"] = (png(RGB, 2, after=text), RGB)
    many = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000))) * 80
    cases["text-much"] = (png(RGB, 2, before=many), RGB)
    profile = chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2 << 20)))
    cases["profile"] = (png(RGB, 2, before=profile, after=chunk(b"eXIf", exif(3))), _ORIENTED[3])
    cases["bad-exif"] = (png(RGB, 2, before=chunk(b"eXIf", b"MM\0*\0\0")), RGB)
    cases["bad-text"] = (png(RGB, 2, before=chunk(b"tEXt", b"a\0b")[:-1] + b"\0"), RGB)
    return {f"png-{name}": (*case, 0) for name, case in cases.items()}


def _oriented() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for value, expected in _ORIENTED.items():
        meta = Image.Exif()
        meta[0x0112] = value
        cases[f"jpeg-oriented-{value}"] = (pillow(RGB, "JPEG", exif=meta, quality=95), expected, 14)
        cases[f"png-oriented-{value}"] = (
            png(RGB, 2, before=chunk(b"eXIf", exif(value))),
            expected,
            0,
        )
        cases[f"webp-oriented-{value}"] = (
            pillow(RGB, "WEBP", lossless=True, exif=meta),
            expected,
            0,
        )
        cases[f"tiff-oriented-{value}"] = (
            pillow(RGB, "TIFF", tiffinfo={0x0112: value}),
            expected,
            0,
        )
    for value in (0, 9):  # what is said wrongly turns nothing
        encoded = pillow(RGB, "JPEG", exif=b"Exif\0\0" + exif(value), quality=95)
        cases[f"jpeg-oriented-{value}"] = (encoded, RGB, 14)
    cases["tiff-packed-oriented-6"] = (
        pillow(RGB, "TIFF", compression="tiff_lzw", tiffinfo={0x0112: 6}),
        _ORIENTED[6],
        0,
    )
    return cases


def _tiffs() -> dict[str, Case]:
    ramp = _ACROSS * 150 + _DOWN * 20  # 12 bits
    low, high = ramp.reshape(-1, 2).T
    twelve = np.stack([low >> 4, (low & 15) << 4 | high >> 8, high & 255], axis=1)
    floats = (GREY / np.float32(255)).astype(np.float32)
    lab = Image.merge("LAB", [Image.new("L", (SIDE, SIDE), v) for v in (138, 209, 198)])
    index = NOISE[..., 0]
    palette = _paletted(index)
    return {
        "tiff-rgb": (pillow(RGB, "TIFF"), RGB, 0),
        "tiff-lzw": (pillow(RGB, "TIFF", compression="tiff_lzw"), RGB, 0),
        "tiff-rgba": (pillow(NOISE, "TIFF"), _white(NOISE[..., :3], NOISE[..., 3]), 0),
        "tiff-grey": (pillow(GREY, "TIFF"), _three(GREY), 0),
        "tiff-grey16": (pillow(GREY_16, "TIFF"), _three(GREY_16 >> 8), 0),
        "tiff-grey16-deflate": (
            pillow(GREY_16, "TIFF", compression="tiff_deflate"),
            _three(GREY_16 >> 8),
            0,
        ),
        "tiff-grey16-big": (
            tiff(GREY_16.astype(">u2").tobytes(), 16, 1, ">"),
            _three(GREY_16 >> 8),
            0,
        ),
        "tiff-grey16-white-is-zero": (
            tiff((65535 - GREY_16).tobytes(), 16, 0),
            _three(GREY_16 >> 8),
            1,
        ),
        "tiff-grey12": (tiff(twelve.astype(np.uint8).tobytes(), 12, 1), _three(ramp >> 4), 0),
        "tiff-int32": (pillow(GREY_16.astype(np.int32), "TIFF"), _three(GREY_16 >> 8), 0),
        "tiff-uint32": (
            tiff(GREY_16.astype(np.uint32).tobytes(), 32, 1),
            _three(GREY_16 >> 8),
            0,
        ),
        "tiff-float": (pillow(floats, "TIFF"), _three(GREY), 0),
        "tiff-float-white-is-zero": (
            tiff((1 - floats).astype("<f4").tobytes(), 32, 0, form=3),
            _three(GREY),
            0,
        ),
        "tiff-1": (
            pillow(Image.fromarray(GREY > 100), "TIFF"),
            _three(np.where(GREY > 100, 255, 0)),
            0,
        ),
        "tiff-palette": (pillow(palette, "TIFF"), _PALETTE[index], 0),
        "tiff-cmyk": (
            pillow(Image.fromarray(np.dstack([255 - RGB, 0 * GREY]), "CMYK"), "TIFF"),
            RGB,
            0,
        ),
        # L* 54.3, a* 80.8, b* 69.9 under D50 is the red of sRGB.
        "tiff-lab": (pillow(lab, "TIFF"), np.full((SIDE, SIDE, 3), (255, 0, 0)), 8),
    }


def _others() -> dict[str, Case]:
    index, alpha = NOISE[..., 0] % 200, np.where(NOISE[..., 3] > 127, 255, 0).astype(np.uint8)
    palette = _paletted(index)
    shown = _PALETTE[index]
    hole = np.where((index == 5)[..., np.newaxis], 255, shown).astype(np.uint8)
    black = Image.new("RGB", (SIDE, SIDE))
    rgb, dots = Image.fromarray(RGB), GREY > 100
    cmyk = Image.fromarray(np.dstack([255 - RGB, 0 * GREY]), "CMYK")
    rgba, blended = NOISE, _white(NOISE[..., :3], NOISE[..., 3])
    head = f"{SIDE} {SIDE}\n".encode()
    big = GREY_16.astype(">u2").tobytes()
    lossless = {"lossless": True, "exact": True}
    ten = (GREY_16 >> 6).astype(">u2").tobytes()
    icon = np.dstack([NOISE[..., :3], alpha])
    return {
        "jpeg-rgb": (pillow(RGB, "JPEG", quality=95), RGB, 14),
        "jpeg-progressive": (pillow(RGB, "JPEG", quality=95, progressive=True), RGB, 14),
        "jpeg-grey": (pillow(GREY, "JPEG", quality=95), _three(GREY), 6),
        "jpeg-cmyk": (pillow(cmyk, "JPEG", quality=95), RGB, 14),
        "jpeg-huge-profile": (
            pillow(RGB, "JPEG", quality=95, icc_profile=bytes(3 << 20)),
            RGB,
            14,
        ),
        "gif": (pillow(palette, "GIF"), shown, 0),
        "gif-transparent": (pillow(palette, "GIF", transparency=5), hole, 0),
        "gif-animated": (
            pillow(palette, "GIF", save_all=True, append_images=[black.quantize()]),
            shown,
            0,
        ),
        "gif-grey": (pillow(GREY, "GIF"), _three(GREY), 0),
        "png-animated": (pillow(rgb, "PNG", save_all=True, append_images=[black]), RGB, 0),
        "bmp": (pillow(RGB, "BMP"), RGB, 0),
        "bmp-palette": (pillow(palette, "BMP"), shown, 0),
        "bmp-1": (pillow(Image.fromarray(dots), "BMP"), _three(np.where(dots, 255, 0)), 0),
        "webp": (pillow(RGB, "WEBP", lossless=True), RGB, 0),
        "webp-alpha": (pillow(rgba, "WEBP", **lossless), blended, 0),
        "webp-animated": (
            pillow(rgb, "WEBP", lossless=True, save_all=True, append_images=[black]),
            RGB,
            0,
        ),
        "ppm": (b"P6\n" + head + b"255\n" + RGB.tobytes(), RGB, 0),
        "ppm-text": (
            b"P3\n" + head + b"255\n" + " ".join(map(str, RGB.ravel())).encode() + b"\n",
            RGB,
            0,
        ),
        "pgm": (b"P5\n" + head + b"255\n" + GREY.tobytes(), _three(GREY), 0),
        "pgm-16": (b"P5\n" + head + b"65535\n" + big, _three(GREY_16 >> 8), 0),
        "pgm-10": (b"P5\n" + head + b"1023\n" + ten, _three(GREY_16 >> 8), 1),
        "pgm-dark-16": (
            b"P5\n" + head + b"65535\n" + (GREY_16 // 300).astype(">u2").tobytes(),
            _three(0 * GREY),
            0,
        ),
        "pbm": (
            b"P4\n" + head + np.packbits(~dots, axis=1).tobytes(),
            _three(np.where(dots, 255, 0)),
            0,
        ),
        "tga": (pillow(RGB, "TGA"), RGB, 0),
        "tga-alpha": (pillow(rgba, "TGA"), blended, 0),
        "pcx": (pillow(RGB, "PCX"), RGB, 0),
        "sgi": (pillow(RGB, "SGI"), RGB, 0),
        "sgi-alpha": (pillow(rgba, "SGI"), blended, 0),
        "ico": (
            pillow(icon, "ICO", sizes=[(SIDE, SIDE)]),
            _white(NOISE[..., :3], alpha),
            0,
        ),
        "jpeg2000": (pillow(RGB, "JPEG2000"), RGB, 0),
        "jpeg2000-alpha": (pillow(rgba, "JPEG2000"), blended, 0),
        "jpeg2000-grey16": (pillow(GREY_16, "JPEG2000"), _three(GREY_16 >> 8), 0),
    }


CASES: dict[str, Case] = _pngs() | _oriented() | _tiffs() | _others()
