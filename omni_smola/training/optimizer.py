"""Optimiser and learning-rate schedule, by optax."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from omni_smola.errors import UserError

OPTIMIZERS = ("adamw", "adafactor")
SCHEDULES = ("constant", "cosine", "linear", "rsqrt")


def warmup_steps(config: ml_collections.ConfigDict, steps: int) -> int:
    """Steps of the warm-up: `warmup`, or half of a run that is shorter than that.

    Args:
      config: `config.optimizer`. steps: length of the run.

    Raises:
      UserError: it is negative.
    """
    if config.warmup < 0:
        raise UserError(
            f"optimizer.warmup is {config.warmup}, but a number of steps is 0 or more: set "
            f"--config.optimizer.warmup=0 for none."
        )
    return config.warmup if config.warmup <= steps else steps // 2


def make_schedule(config: ml_collections.ConfigDict, steps: int) -> optax.Schedule:
    """Warm-up from 0 to `learning_rate` over `warmup_steps`, then down to `final_fraction` of it.

    Args:
      config: `config.optimizer`. steps: length of the run.

    Raises:
      UserError: an unknown schedule, or a negative warm-up.
    """
    peak, warmup = config.learning_rate, warmup_steps(config, steps)
    if config.schedule not in SCHEDULES:
        raise UserError(
            f"optimizer.schedule is {config.schedule!r}: choose one of {', '.join(SCHEDULES)}."
        )
    rest = max(1, steps - warmup)
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, config.final_fraction),
        "linear": lambda: optax.linear_schedule(peak, peak * config.final_fraction, rest),
        # optax asks for it before the end of the warm-up, too, at steps below 0.
        "rsqrt": lambda: lambda step: peak * (1 + jnp.maximum(step, 0) / max(1, warmup)) ** -0.5,
    }[config.schedule]()
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def make_optimizer(
    config: ml_collections.ConfigDict, steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Clipping by global norm, then AdamW or Adafactor, on the schedule; computed in float32."""
    schedule = make_schedule(config, steps)
    if config.name == "adamw":
        rule = optax.adamw(schedule, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay)
    elif config.name == "adafactor":
        rule = optax.adafactor(
            schedule,
            multiply_by_parameter_scale=False,
            weight_decay_rate=config.weight_decay or None,
        )
    else:
        raise UserError(
            f"optimizer.name is {config.name!r}: choose one of {', '.join(OPTIMIZERS)}."
        )
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return in_float32(optax.chain(*clip, rule)), schedule


def in_float32(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same rule with statistics and updates in float32, whatever the parameters' dtype.

    Adam's second moment moves by a thousandth of itself in a step. bfloat16 has steps of a 128th,
    so a moment of that dtype would stand still.

    Args:
      rule: a transformation that reads gradients and parameters.

    Returns:
      A rule of the same structure. Its updates are float32, and `optax.apply_updates` rounds their
      sum with the parameters to the parameters' dtype.
    """

    def init(params: optax.Params) -> optax.OptState:
        return rule.init(_float32(params))

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        return rule.update(_float32(updates), state, _float32(params))

    return optax.GradientTransformation(init, update)


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)
