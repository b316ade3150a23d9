"""The two programs that accelerators run, as plain functions of a config: a step and an answer.

A run jits them on its devices; `--mode=compile` compiles the same ones for devices that are not
there.
"""

from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_smola.evaluation import decode
from omni_smola.models import build
from omni_smola.training import compiler
from omni_smola.training.state import Assemble, Tree
from omni_smola.training.step import Batch, TrainState, make_train_step

# Fields of a batch that say what is wanted of the model, or of which rows.
ANSWERS = ("target", "target_mask", "task", "example_mask")


def train_step(
    config: ml_collections.ConfigDict,
    assemble: Assemble,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
) -> Callable[[TrainState, Tree, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """(state, frozen, batch) -> (state, metrics), see `step.make_train_step`."""
    return make_train_step(
        assemble,
        optimizer,
        schedule,
        accumulate=config.accumulate,
        label_smoothing=config.loss.label_smoothing,
        z_loss=config.loss.z_loss,
        penalty=build.penalty(config.language),
        noise_seed=config.seed if build.noisy(config.vision, config.language) else None,
    )


def answer(
    config: ml_collections.ConfigDict, assemble: Assemble, eos_id: int
) -> Callable[[Tree, Tree, Batch, jax.Array], jax.Array]:
    """(trainable, frozen, batch, key) -> generated ids (b, target_length) int32, as evaluated.

    The batch has no ANSWERS. Raises UserError for a way of decoding that cannot be.
    """
    how = decoding(config)
    length = config.data.target_length

    def generate(trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array) -> jax.Array:
        model = assemble(trainable, frozen)
        cache = model.init_cache(batch, length)
        size = batch["prompt"].shape[0]
        return decode.decode(model.step, cache, size, length, how, key, eos_id)

    return generate


def jit_answer(mesh: Mesh, generate: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Compiles what `answer` gives for `mesh`; every device, and so every host, gets all ids."""
    whole = NamedSharding(mesh, PartitionSpec())
    return compiler.jit(mesh, generate, out_shardings=whole)


def decoding(config: ml_collections.ConfigDict) -> decode.Decoding:
    """`config.decode` with the config's seed; raises UserError for a value out of range."""
    return decode.Decoding(**config.decode.to_dict(), seed=config.seed)


def cache_shapes(assemble: Assemble, length: int, *arguments: Any) -> Any:
    """What `answer` keeps between tokens, abstractly: a pytree of `jax.ShapeDtypeStruct`s.

    Args:
      length: tokens of an answer. arguments: trainable, frozen and batch.
    """
    return jax.eval_shape(
        lambda trainable, frozen, batch: assemble(trainable, frozen).init_cache(batch, length),
        *arguments,
    )
