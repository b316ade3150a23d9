"""Answers of a model to a batch, by any way of decoding, compiled once for each shape."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Protocol, cast

import jax
import numpy as np
from flax import nnx

from omni_smola.data.model_text import framing_of
from omni_smola.data.tokenizer import Tokenizer
from omni_smola.errors import UserError
from omni_smola.evaluation import decode
from omni_smola.evaluation.decode import Decoding
from omni_smola.evaluation.evaluator import until_eos


class Answering(Protocol):
    """A model that decodes: one of `omni_smola.models`, with or without experts."""

    def init_cache(self, batch: Mapping[str, jax.Array], max_length: int) -> decode.Cache:
        """What the model has read of a batch."""
        ...

    def step(
        self, cache: decode.Cache, tokens: jax.Array, position: jax.Array
    ) -> tuple[jax.Array, decode.Cache]:
        """See `omni_smola.evaluation.decode`."""
        ...


# What a batch says of the answer, which is not an input of a model that generates it.
_ANSWERS = ("target", "target_mask", "task", "example_mask")


def generate(
    model: nnx.Module,
    batch: Mapping[str, Any],
    *,
    max_length: int = 16,
    decoding: Decoding | None = None,
    tokenizer: Tokenizer | None = None,
) -> list[str]:
    """The texts that a model answers to a batch.

    Args:
      model: of `load_backbone`, with or without experts.
      batch: of `make_batch`, or of the pipeline; its targets are not read.
      max_length: tokens of an answer at most.
      decoding: the method, such as `Decoding("beam", beams=4)`; None is greedy.
      tokenizer: where it is not the one beside the model's weights.

    Returns:
      One text for each row.

    Raises:
      UserError: `max_length` is below 1, or the model's tokenizer is not known.
    """
    framing = framing_of(model, tokenizer)
    end = framing.end_id
    ids = generate_ids(model, batch, max_length=max_length, decoding=decoding, eos_id=end)
    return [framing.text(until_eos(row, end)) for row in ids]


def generate_ids(
    model: nnx.Module,
    batch: Mapping[str, Any],
    *,
    max_length: int = 16,
    decoding: Decoding | None = None,
    eos_id: int = 1,
) -> np.ndarray:
    """As `generate`, of token ids: (b, max_length) int32, the end included and 0 after it."""
    if max_length < 1:
        raise UserError(f"max_length is {max_length}, but an answer has 1 token or more.")
    decoding = decoding or Decoding()
    inputs = {name: value for name, value in batch.items() if name not in _ANSWERS}
    return np.asarray(
        _generated(
            model,
            inputs,
            jax.random.key(decoding.seed),
            length=max_length,
            how=dataclasses.replace(decoding, seed=0),  # one program for all seeds
            eos_id=eos_id,
        )
    )


@functools.partial(nnx.jit, static_argnames=("length", "how", "eos_id"))
def _generated(
    model: nnx.Module,
    batch: dict[str, jax.Array],
    key: jax.Array,
    *,
    length: int,
    how: Decoding,
    eos_id: int,
) -> jax.Array:
    # A copy, as a model may keep facts of the batch in its layers.
    answering = cast(Answering, nnx.clone(model))
    cache = answering.init_cache(batch, length)
    return decode.decode(answering.step, cache, len(batch["prompt"]), length, how, key, eos_id)
