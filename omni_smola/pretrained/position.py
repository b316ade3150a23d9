"""Positional embeddings of a ViT at another resolution: the grid is resampled, channel by channel.

Two ways, each that of the code whose checkpoints it belongs to, neither of them antialiased:

  bicubic   transformers (SigLIP, CLIP, DINOv2): torch's interpolate(mode="bicubic",
            align_corners=False). Pixel centres at (i + 1/2) * old / new - 1/2, Keys' kernel with
            a = -3/4, the border repeated.
  bilinear  big_vision: scipy.ndimage.zoom(order=1). The corners of both grids coincide.

Both are a `Rule.fit`: `fit=position.bicubic`.
"""

import math
from collections.abc import Callable

import numpy as np

from omni_smola.errors import UserError


def bicubic(x: np.ndarray, shape: tuple[int, ...], *, leading: int = 0) -> np.ndarray:
    """Resamples as transformers does.

    Args:
      x: (leading + old * old, width), rows of the grid first.
      shape: (leading + new * new, width).
      leading: tokens in front that lie on no grid, such as a class token; they are kept.

    Returns:
      float32 of `shape`; x itself where it has that shape.

    Raises:
      UserError: a number of tokens that is no square, or another width.
    """
    return _resample(x, shape, leading, _cubic_weights)


def bilinear(x: np.ndarray, shape: tuple[int, ...], *, leading: int = 0) -> np.ndarray:
    """Resamples as big_vision does; otherwise as `bicubic`."""
    return _resample(x, shape, leading, _linear_weights)


def _resample(
    x: np.ndarray,
    shape: tuple[int, ...],
    leading: int,
    weights: Callable[[int, int], np.ndarray],
) -> np.ndarray:
    if x.shape == tuple(shape):
        return x
    if x.ndim != 2 or len(shape) != 2 or x.shape[1] != shape[1]:
        raise UserError(f"positional embeddings of shape {x.shape} cannot become {tuple(shape)}")
    old, new = _side(x.shape[0] - leading), _side(shape[0] - leading)
    w = weights(old, new)
    grid = x[leading:].astype(np.float32).reshape(old, old, -1)
    grid = np.einsum("ai,ijd->ajd", w, grid)
    grid = np.einsum("bj,ajd->abd", w, grid).reshape(new * new, -1)
    return np.concatenate([x[:leading].astype(np.float32), grid])


def _side(tokens: int) -> int:
    side = math.isqrt(max(tokens, 0))
    if side < 1 or side * side != tokens:
        raise UserError(f"positional embeddings of {tokens} tokens are no square grid")
    return side


def _cubic_weights(old: int, new: int) -> np.ndarray:
    """(new, old) float32: what each old row adds to each new one."""
    centre = (np.arange(new) + 0.5) * (old / new) - 0.5
    near = np.floor(centre).astype(int)
    return _matrix(new, old, [(near + k, _keys(centre - near - k)) for k in (-1, 0, 1, 2)])


def _linear_weights(old: int, new: int) -> np.ndarray:
    """(new, old) float32."""
    at = np.arange(new) * ((old - 1) / max(new - 1, 1))
    near = np.floor(at).astype(int)
    return _matrix(new, old, [(near, 1 - (at - near)), (near + 1, at - near)])


def _keys(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Cubic convolution (Keys, 1981); torch's a."""
    x = np.abs(distance)
    inner = (a + 2) * x**3 - (a + 3) * x**2 + 1
    outer = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))


def _matrix(new: int, old: int, taps: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    matrix = np.zeros((new, old))
    for column, weight in taps:
        np.add.at(matrix, (np.arange(new), np.clip(column, 0, old - 1)), weight)
    return matrix.astype(np.float32)
