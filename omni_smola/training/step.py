"""One step: loss on the target tokens, gradients of the trainable part alone, new parameters."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from omni_smola.training.state import Assemble, Tree

Array = jax.Array
Batch = dict[str, Array]
Penalty = Callable[[nnx.Module, Batch], Array]


@flax.struct.dataclass
class TrainState:
    """What a run changes: the step (), the trainable parameters, the optimiser's state."""

    step: Array
    trainable: Tree
    optimizer: Any


def cross_entropy(
    logits: Array, target: Array, mask: Array, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> tuple[Array, dict[str, Array]]:
    """Summed loss over target tokens, and sums to make means of.

    Args:
      logits: (b, t, v) float32. target: (b, t) int32. mask: (b, t) bool, True where it counts.
      label_smoothing: share of the probability spread over the vocabulary.
      z_loss: weight of log(Z)^2, which keeps the logits from drifting (T5X, PaLM).

    Returns:
      loss () and {loss, correct, tokens}, all sums over the tokens.
    """
    log_z = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    nll = log_z - picked
    smooth = log_z - jnp.mean(logits, axis=-1)
    per_token = (1 - label_smoothing) * nll + label_smoothing * smooth + z_loss * log_z**2
    weight = mask.astype(jnp.float32)
    sums = {
        "loss": jnp.sum(nll * weight),
        "correct": jnp.sum((jnp.argmax(logits, axis=-1) == target) * weight),
        "tokens": jnp.sum(weight),
    }
    return jnp.sum(per_token * weight), sums


def target_loss(model: nnx.Module, batch: Batch) -> Array:
    """The mean cross-entropy of a batch's target tokens, () float32; for a loop of your own.

    Args:
      model: batch -> logits (b, t, v) float32 of the target.
      batch: with target (b, t) int32 and target_mask (b, t) bool.
    """
    _, sums = cross_entropy(model(batch), batch["target"], batch["target_mask"])
    return sums["loss"] / jnp.maximum(sums["tokens"], 1.0)


def make_train_step(
    assemble: Assemble,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    accumulate: int = 1,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    penalty: Penalty | None = None,
    noise_seed: int | None = None,
) -> Callable[[TrainState, Tree, Batch], tuple[TrainState, dict[str, Array]]]:
    """The function (state, frozen, batch) -> (state, metrics), to be jitted.

    `jax.grad` is taken with respect to `state.trainable` only: gradients of frozen weights are
    never formed. With `accumulate` > 1 the batch is worked through in that many parts, and the loss
    is the mean over the tokens of the whole batch all the same. Gradients are summed and averaged
    in float32, whatever the dtype of the parameters. A step keeps shapes and dtypes of the state.

    Where the loss or the gradients are not finite, parameters and optimiser stay as they are, and
    the metric `skipped` is 1; the step counts all the same, as it is the position in the data.

    Args:
      assemble: (trainable, frozen) -> model. optimizer, schedule: of the updates.
      accumulate, label_smoothing, z_loss: see the config.
      penalty: (model, batch) -> () float32, added to the mean loss of the tokens.
      noise_seed: where the experts' noise (dropout, Gumbel) comes from, a pure function of it and
        the step; None for experts without any.
    """

    def loss(trainable: Tree, frozen: Tree, batch: Batch) -> tuple[Array, dict[str, Array]]:
        model = assemble(trainable, frozen)
        logits = model(batch)
        total, sums = cross_entropy(
            logits, batch["target"], batch["target_mask"], label_smoothing, z_loss
        )
        if penalty is not None:
            # Weighted by the tokens, as everything is divided by their number in the end.
            sums["penalty"] = penalty(model, batch) * sums["tokens"]
            total = total + sums["penalty"]
        return total, sums

    def gradient(trainable: Tree, frozen: Tree, batch: Batch) -> tuple[Tree, dict[str, Array]]:
        grads, sums = jax.grad(loss, has_aux=True)(trainable, frozen, batch)
        return jax.tree.map(lambda g: g.astype(jnp.float32), grads), sums

    def summed(trainable: Tree, frozen: Tree, batch: Batch) -> tuple[Tree, dict[str, Array]]:
        if accumulate == 1:
            return gradient(trainable, frozen, batch)
        # Every accumulate-th example: of a batch over devices, each part has rows of all of them.
        parts = {
            k: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1)
            for k, x in batch.items()
            if k != "key"
        }
        if "key" in batch:
            parts["key"] = jax.random.split(batch["key"], accumulate)

        def add(total, part):
            return jax.tree.map(jnp.add, total, gradient(trainable, frozen, part)), None

        shapes = jax.eval_shape(gradient, trainable, frozen, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
        return jax.lax.scan(add, zeros, parts)[0]

    def train_step(
        state: TrainState, frozen: Tree, batch: Batch
    ) -> tuple[TrainState, dict[str, Array]]:
        if noise_seed is not None:
            batch = batch | {"key": jax.random.fold_in(jax.random.key(noise_seed), state.step)}
        grads, sums = summed(state.trainable, frozen, batch)
        tokens = jnp.maximum(sums["tokens"], 1.0)
        grads = jax.tree.map(lambda g: g / tokens, grads)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.trainable)
        metrics = {
            "loss": sums["loss"] / tokens,
            "token_accuracy": sums["correct"] / tokens,
            "gradient_norm": optax.global_norm(grads),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
        }
        if "penalty" in sums:
            metrics["penalty"] = sums["penalty"] / tokens
        trainable = optax.apply_updates(state.trainable, updates)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
        metrics["skipped"] = 1.0 - finite.astype(jnp.float32)
        trainable, optimizer_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (trainable, optimizer_state),
            (state.trainable, state.optimizer),
        )
        return TrainState(state.step + 1, trainable, optimizer_state), metrics

    return train_step
