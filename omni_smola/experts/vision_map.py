"""Maps of visual tokens whose heights and widths may differ within a batch, and how to read them.

A map is its tokens in row-major order with padding last, and its numbers of rows and columns. All
that is done here takes the sizes as arrays, so one compiled program serves every shape of map.
"""

import flax.struct
import jax
import jax.numpy as jnp

Array = jax.Array


@flax.struct.dataclass
class VisionMap:
    """What a vision encoder says of a batch of images.

    Attributes:
      tokens: (b, n, c); token (y, x) of an example lies at index y * columns + x, padding last.
      sizes: (b, 2) int32, rows and columns of every example, rows * columns <= n; 0 of both is an
        example without an image.
      cls: (b, c) or None.
    """

    tokens: Array
    sizes: Array
    cls: Array | None = None

    def mask(self) -> Array:
        """(b, n) bool, False for padding."""
        return jnp.arange(self.tokens.shape[1]) < jnp.prod(self.sizes, axis=-1)[:, None]

    def visible(self) -> Array:
        """The tokens, (b, n, c), zero where padding was, even if it held NaN."""
        return jnp.where(self.mask()[:, :, None], self.tokens, 0)


def adaptive_average(tokens: Array, sizes: Array, side: int) -> Array:
    """Averages of side x side bins: torch's AdaptiveAvgPool2d, for every example's own size.

    Bin i of an axis of length h is floor(i h / side) to ceil((i + 1) h / side), so bins overlap
    where h is no multiple of side, and repeat tokens where h < side.

    Args:
      tokens: (b, n, c), zeros (or anything finite) for padding.
      sizes: (b, 2) int32, rows and columns.
      side: bins per axis.

    Returns:
      (b, side * side, c) in the dtype of `tokens`, summed in float32; zeros for an empty map.
    """
    batch, n, _ = tokens.shape
    index, columns = jnp.arange(n), jnp.maximum(sizes[:, 1:], 1)
    in_row = _in_bins(index // columns, sizes[:, 0], side)
    in_column = _in_bins(index % columns, sizes[:, 1], side)
    members = (in_row[:, :, None] & in_column[:, None, :]).reshape(batch, side * side, n)
    # Ones and zeros are exact in every dtype, weights 1 / count would not be.
    total = jnp.einsum(
        "bsn,bnc->bsc",
        members.astype(tokens.dtype),
        tokens,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    count = jnp.maximum(jnp.sum(members, axis=-1, keepdims=True), 1)
    return (total / count).astype(tokens.dtype)


def _in_bins(place: Array, length: Array, side: int) -> Array:
    """place (b, n) on an axis of length (b,) -> (b, side, n) bool, whether it is in the bin."""
    bins, length = jnp.arange(side)[:, None], length[:, None, None]
    start = bins * length // side
    end = ((bins + 1) * length + side - 1) // side
    return (start <= place[:, None, :]) & (place[:, None, :] < end)


def weighted_sample(value: Array, points: Array, weights: Array, sizes: Array) -> Array:
    """Sums of bilinear samples, each head's of its own channels: deformable attention's reading.

    As grid_sample with align_corners=False and zeros outside: a map fills [0, 1] x [0, 1], its
    token (y, x) is centred at ((x + 1/2) / columns, (y + 1/2) / rows). Only tokens of an example's
    own map are gathered. Memory is 4 * points * queries * channels, whatever the size of the map.

    Args:
      value: (b, n, heads, dim).
      points: (b, queries, heads, points, 2) float32, (x, y).
      weights: (b, queries, heads, points).
      sizes: (b, 2) int32, rows and columns.

    Returns:
      (b, queries, heads, dim) in the dtype of `value`, summed in float32.
    """
    batch, queries, heads, number, _ = points.shape
    extent = sizes[:, None, None, None, ::-1]  # columns, rows: (x, y) as the points
    place = points * extent - 0.5
    low = jnp.floor(place)
    fraction = (place - low)[..., None, :]
    neighbour = jnp.asarray([[0, 0], [1, 0], [0, 1], [1, 1]], jnp.float32)
    corner, extent = low[..., None, :] + neighbour, extent[..., None, :]
    # Linear in the fraction: abs(1 - neighbour - fraction) would lose the gradient at whole places.
    share = neighbour * fraction + (1 - neighbour) * (1 - fraction)
    share = share[..., 0] * share[..., 1]
    inside = jnp.all((corner >= 0) & (corner < extent), axis=-1)
    share = jnp.where(inside, share, 0) * weights[..., None]
    x, y = jnp.moveaxis(jnp.clip(corner, 0, jnp.maximum(extent - 1, 0)), -1, 0)
    index = y.astype(jnp.int32) * extent[..., 0] + x.astype(jnp.int32)
    index = index.transpose(0, 1, 3, 4, 2).reshape(batch, queries * number * 4, heads, 1)
    read = jnp.take_along_axis(value, index, axis=1, mode="clip")
    read = read.reshape(batch, queries, number * 4, heads, -1).astype(jnp.float32)
    share = share.transpose(0, 1, 3, 4, 2).reshape(batch, queries, number * 4, heads, 1)
    return jnp.sum(read * share, axis=2).astype(value.dtype)
