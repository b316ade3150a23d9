"""MoME's second stage: language experts that start as copies of the first stage's adapters.

The first stage trains a single adapter beside every feed-forward; the second has K copies of each
and fresh routers, all else as it was (arXiv 2407.12709, section 4.1).
"""

import copy
import os

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from omni_smola.errors import UserError
from omni_smola.training import state as states
from omni_smola.training.checkpoint import Checkpoints
from omni_smola.training.model import Model, abstract_trainable, identity


def first_stage(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config of the stage before this one: one adapter in place of every MoLE."""
    first = copy.deepcopy(config)
    with first.unlocked():
        first.steps = config.language.stage_1_steps
        first.language.update(
            experts=1, route="instance", gumbel=False, balance=0.0, stage_1="", stage_1_steps=0
        )
    return first


def folder(config: ml_collections.ConfigDict, workdir: str) -> str:
    """Where the first stage of a run lies: as configured, or inside of its own workdir."""
    return config.language.stage_1 or os.path.join(workdir, "stage_1")


def start(config: ml_collections.ConfigDict, mesh: Mesh, workdir: str, model: Model) -> states.Tree:
    """The second stage's parameters at step 0.

    Args:
      config: of the second stage. workdir: of its first stage, with a checkpoint.
      model: the second stage's, as drawn; its routers stay so.

    Raises:
      UserError: there is no checkpoint, or it is of another backbone, other vision experts, or
        adapters of another width or place.
    """
    first = first_stage(config)
    if not os.path.isdir(os.path.join(workdir, "checkpoints")):
        raise UserError(
            f"There is no first stage in {workdir}: name the workdir of a finished run of "
            "configs/mome.py:language=adapter by --config.language.stage_1=PATH, or have it "
            "trained first by --config.language.stage_1_steps=300."
        )
    checkpoints = Checkpoints(workdir, identity(first, model.fingerprint))
    names = ("backbone", "experts", "vision", "language")
    _, found = checkpoints.restore_trainable(abstract_trainable(first, mesh), names)
    checkpoints.close()

    def filled(drawn: states.Tree, found: states.Tree) -> states.Tree:
        # A first stage's expert axis has size 1, so that K copies are a broadcast.
        single = states.paths(found)
        return states.nest(
            {p: jnp.broadcast_to(single.get(p, x), x.shape) for p, x in states.paths(drawn).items()}
        )

    place = model.layout.tree(model.trainable)
    return jax.jit(filled, out_shardings=place)(model.trainable, found)
