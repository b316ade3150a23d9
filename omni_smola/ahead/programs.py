"""The programs of a config for devices that are not there: abstract arguments, no weights made.

They are those of a run, from `omni_smola.programs`, with the batches' shapes, optimiser and
shardings that a run has.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_smola import config as configs
from omni_smola import programs, views
from omni_smola.data import frames
from omni_smola.training import model as models
from omni_smola.training import optimizer as optimizers
from omni_smola.training import sharding
from omni_smola.training import state as states
from omni_smola.training.step import TrainState

# What nearly all vocabularies end an answer with; which id it is changes no program's cost.
_EOS = 1


@dataclasses.dataclass
class Program:
    """A jitted function with all it is to be compiled of.

    Attributes:
      jitted: the function. arguments: its arguments, abstract, with their shardings.
      mesh: where it runs. rounds: of its loop that may end early, at most.
      facts: what is known before compiling, by name.
    """

    jitted: Callable[..., Any]
    arguments: tuple[Any, ...]
    mesh: Mesh
    rounds: int
    facts: dict[str, int]


NAMES = ("train", "decode")


def make(
    name: str, config: ml_collections.ConfigDict, devices: Sequence[jax.Device] | None = None
) -> Program:
    """The program `name` of a config, "train" or "decode", on `devices` (None: those there are).

    Raises:
      UserError: as a run of the config would at its start.
    """
    configs.check(config)
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    sharding.check_batch(mesh, "batch_size", config.batch_size, config.accumulate)
    sharding.check_batch(mesh, "eval.batch_size", config.eval.batch_size)
    return {"train": _train, "decode": _decode}[name](config, mesh)


def batch_shapes(
    config: ml_collections.ConfigDict, model: models.Model, size: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """The fields of a training batch of `size` examples, as the pipeline gives them."""
    side, data = model.image_size, config.data
    family, _ = model.frame
    frame = frames.named(data.frame, family)
    # Without a vocabulary the tokens of a frame's text cannot be counted.
    prompt_length = data.prompt_length + frame.estimate()
    fields = {
        "image": ((side, side, 3), "uint8"),
        "image_mask": ((), "bool"),
        "prompt": ((prompt_length,), "int32"),
        "prompt_mask": ((prompt_length,), "bool"),
        "target": ((data.target_length,), "int32"),
        "target_mask": ((data.target_length,), "bool"),
        "task": ((), "int32"),
    }
    if not frame.bare:
        fields["frame"] = ((3,), "int32")
    fields |= views.fields(model.views)
    if config.instruction.encoder:
        length = (config.instruction.length,)
        fields |= {"instruction": (length, "int32"), "instruction_mask": (length, "bool")}
    return {
        name: jax.ShapeDtypeStruct((size, *shape), jnp.dtype(dtype))
        for name, (shape, dtype) in fields.items()
    }


def _train(config: ml_collections.ConfigDict, mesh: Mesh) -> Program:
    optimizer, schedule = optimizers.make_optimizer(config.optimizer, config.steps)
    model = models.abstract_model(config, mesh)
    step = programs.train_step(config, model.assemble, optimizer, schedule)
    opt_state = jax.eval_shape(optimizer.init, model.trainable)
    opt_state = states.abstract(opt_state, model.layout.tree(opt_state))
    scalar = model.layout.place("step", ())
    state = TrainState(
        jax.ShapeDtypeStruct((), jnp.int32, sharding=scalar), model.trainable, opt_state
    )
    batch = _placed(mesh, batch_shapes(config, model, config.batch_size))
    return Program(
        sharding.jit_train_step(mesh, step, state),
        (state, model.frozen, batch),
        mesh,
        1,
        _facts(config.batch_size, model),
    )


def _decode(config: ml_collections.ConfigDict, mesh: Mesh) -> Program:
    model = models.abstract_model(config, mesh)
    size, length = config.eval.batch_size, config.data.target_length
    batch = {
        name: shape
        for name, shape in batch_shapes(config, model, size).items()
        if name not in programs.ANSWERS
    }
    arguments = (model.trainable, model.frozen, _placed(mesh, batch))
    key = jax.eval_shape(lambda: jax.random.key(config.seed))
    key = states.abstract(key, NamedSharding(mesh, PartitionSpec()))
    generate = programs.answer(config, model.assemble, _EOS)
    cache = programs.cache_shapes(model.assemble, length, *arguments)
    return Program(
        programs.jit_answer(mesh, generate),
        (*arguments, key),
        mesh,
        length,
        _facts(size, model) | {"cache_bytes_of_all_chips": _bytes(cache)},
    )


def _facts(batch_size: int, model: models.Model) -> dict[str, int]:
    return {
        "batch_size": batch_size,
        "frozen_parameters": states.count(model.frozen),
        "trained_parameters": states.count(model.trainable),
    }


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _placed(mesh: Mesh, batch: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.ShapeDtypeStruct]:
    """As `sharding.put_batch` would lay it."""
    place = NamedSharding(mesh, sharding.BATCH)
    return states.abstract(batch, dict.fromkeys(batch, place))
