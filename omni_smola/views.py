"""How a vision encoder sees the decoded image: as a square, or as patches that keep its aspect.

Pure descriptions, for the encoders that want them and for `features`, which makes the pixels. A
view called NAME adds to every batch, for b examples:

  Square   image:NAME    (b, size, size, 3) uint8
  Patches  patches:NAME  (b, max_patches, patch * patch * 3) float32, or uint8 if not standardized
           sizes:NAME    (b, 2) int32, the rows and columns of patches

An example without an image gets zeros, and sizes (0, 0).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

from omni_smola.errors import UserError

METHODS = ("bilinear", "bicubic")


class Field(NamedTuple):
    """One example's array in a batch: its shape, without the batch axis, and its dtype's name."""

    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Square:
    """The image resized to a square; its aspect ratio is not kept.

    Attributes:
      size: side in pixels. method: how to interpolate, one of METHODS.
      antialias: whether the filter widens when an image is made smaller, as in Pillow.

    Raises:
      UserError: a size below 1 or an unknown method.
    """

    size: int
    method: str = "bilinear"
    antialias: bool = True

    def __post_init__(self):
        _check_positive("size", self.size)
        if self.method not in METHODS:
            raise UserError(
                f"The method of a view is {self.method!r}: choose one of {', '.join(METHODS)}."
            )

    def fields(self, name: str) -> dict[str, Field]:
        """What this view adds to a batch under `name`."""
        return {key("image", name): Field((self.size, self.size, 3), "uint8")}


@dataclasses.dataclass(frozen=True)
class Patches:
    """The image as at most `max_patches` square patches, its aspect ratio kept (Pix2Struct).

    The image is made larger or smaller (bilinear, antialiased) to as many whole patches as fit the
    budget (arXiv 2210.03347, section 2.2). Patches are row-major, and within one (y, x, channel);
    the rest of the budget is zeros.

    Attributes:
      patch: side of a patch in pixels.
      max_patches: the budget.
      standardize: subtract the mean of the whole image and divide by its deviation, at least
        1 / sqrt(h * w * 3), as Pix2Struct does; else uint8 pixels, a quarter of the memory.

    Raises:
      UserError: a size below 1.
    """

    patch: int = 16
    max_patches: int = 2048
    standardize: bool = True

    def __post_init__(self):
        _check_positive("patch", self.patch)
        _check_positive("max_patches", self.max_patches)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image of that many pixels; their product fits."""
        # In this order of operations: where the root is whole, the last bit decides a row, and
        # public weights were trained with these grids.
        height, width = int(height), int(width)
        patches = self.max_patches * (self.patch / height) * (self.patch / width)
        scale = math.sqrt(patches)
        rows, columns = (
            max(min(math.floor(scale * side / self.patch), self.max_patches), 1)
            for side in (height, width)
        )
        return rows, columns

    def fields(self, name: str) -> dict[str, Field]:
        """What this view adds to a batch under `name`."""
        dtype = "float32" if self.standardize else "uint8"
        return {
            key("patches", name): Field((self.max_patches, 3 * self.patch**2), dtype),
            key("sizes", name): Field((2,), "int32"),
        }


View = Square | Patches


def key(part: str, name: str) -> str:
    """The batch's name of a view's `part`: image, patches or sizes."""
    return f"{part}:{name}"


def fields(views: Mapping[str, View] | None) -> dict[str, Field]:
    """All that a set of views adds to a batch, by its name there."""
    return {
        name: field
        for view_name, view in (views or {}).items()
        for name, field in view.fields(view_name).items()
    }


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"The {name} of a view is {value}; it must be 1 or more.")
