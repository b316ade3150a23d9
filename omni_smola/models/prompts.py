"""Where prompt and image are in what a model reads.

A batch says it in `frame` (b, 3) int32: the number of ids of `prompt` before the image, before the
prompt's own, and before those that follow them (`data.framing`). Without the field the image stands
first, and all ids are the prompt's own.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

Array = jax.Array
Batch = Mapping[str, Array]
# Embedded tokens (b, m, d_model) and their kinds (b, m) int32.
Tokens = tuple[Array, Array]


def with_image(text: Tokens, image: Tokens, batch: Batch) -> Tokens:
    """A prompt of p tokens and an image of v as one sequence of p + v, the image in its place."""
    joined = tuple(jnp.concatenate(pair, axis=1) for pair in zip(image, text, strict=True))
    if "frame" not in batch:
        return joined
    v, place = image[1].shape[1], batch["frame"][:, :1]
    index = jnp.arange(joined[1].shape[1])
    moved = jnp.where(index < place + v, index - place, index)
    source = jnp.where(index < place, index + v, moved)
    tokens, kinds = joined
    return (
        jnp.take_along_axis(tokens, source[..., None], axis=1),
        jnp.take_along_axis(kinds, source, axis=1),
    )


def own_tokens(batch: Batch) -> Array:
    """(b, p) bool: the ids of `prompt` that are neither its frame's nor padding."""
    mask = batch["prompt_mask"]
    if "frame" not in batch:
        return mask
    start, end = batch["frame"][:, 1:2], batch["frame"][:, 2:]
    index = jnp.arange(mask.shape[1])
    return mask & (start <= index) & (index < end)
