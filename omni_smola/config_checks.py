"""What is refused of a config before anything is read or made."""

from collections.abc import Collection, Mapping
from typing import Any

import ml_collections

from omni_smola.errors import UserError


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for a number out of range that no other part of a run checks at the door."""
    for name, least in (
        ("steps", 0),
        ("batch_size", 1),
        ("accumulate", 1),
        ("log_every", 1),
        ("data.max_pixels", 1),
        ("data.prompt_length", 2),
        ("data.target_length", 2),
        ("optimizer.learning_rate", 0),
        ("optimizer.clip_norm", 0),
        ("loss.z_loss", 0),
        ("eval.examples", 0),
        ("eval.batch_size", 1),
        ("eval.every", 0),
        ("checkpoint.every", 1),
        ("checkpoint.minutes", 0),
        ("checkpoint.keep", 1),
        ("checkpoint.keep_best", 0),
        ("checkpoint.grace_seconds", 0),
        ("faults.bad_steps", 1),
        ("faults.watchdog_minutes", 0),
        ("backbone.unroll", 1),
        ("language.stage_1_steps", 0),
    ):
        value = _lookup(config, name)
        if not value >= least:  # NaN is not, either
            raise UserError(
                f"config.{name} is {value}, but it must be {least} or more: "
                f"set --config.{name}={least} or higher."
            )
    if not 0 <= config.loss.label_smoothing < 1:
        raise UserError(
            f"config.loss.label_smoothing is {config.loss.label_smoothing}, but it must be at "
            "least 0 and below 1: set --config.loss.label_smoothing=0.1."
        )
    if config.checkpoint.which not in ("latest", "best"):
        raise UserError(
            f"config.checkpoint.which is {config.checkpoint.which!r}: choose latest or best."
        )
    if config.data.on_error not in ("fail", "skip"):
        raise UserError(f"config.data.on_error is {config.data.on_error!r}: choose fail or skip.")
    if config.checkpoint.keep_best and not config.eval.every:
        raise UserError(
            f"config.checkpoint.keep_best is {config.checkpoint.keep_best}, but nothing is "
            "evaluated during training: set --config.eval.every to a number of steps."
        )
    if config.export_part not in ("backbone", "vision"):
        raise UserError(
            f"config.export_part is {config.export_part!r}: choose backbone, or vision for its "
            "tower alone."
        )
    for name in ("backbone.dtype", "backbone.param_dtype"):
        if _lookup(config, name) not in ("float32", "bfloat16"):
            raise UserError(
                f"config.{name} is {_lookup(config, name)!r}: choose float32 or bfloat16."
            )


def check_given(config: ml_collections.ConfigDict, given: Collection[str]) -> None:
    """Raises UserError for fields that defaults would adapt to each other, but a user set.

    Args:
      given: the fields set on the command line, such as "optimizer.warmup".
    """
    warmup = config.optimizer.warmup
    if "optimizer.warmup" in given and warmup > config.steps:
        raise UserError(
            f"config.optimizer.warmup is {warmup} steps, but the run has {config.steps}: set "
            f"--config.optimizer.warmup to at most {config.steps}, or leave it out, and it shrinks "
            "with the run."
        )


def check_tasks(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for a config that names no task."""
    if not config.data.rates:
        raise UserError(
            "The config has nothing to train on: name folders of JSONL and images, as in "
            "--config=configs/own_data.py:folders=path/to/one+path/to/another or by "
            "--config.data.sources.NAME=PATH, or tasks, as in "
            "--config=configs/pali_smola.py:tasks=full."
        )


def _lookup(config: Mapping[str, Any], name: str) -> Any:
    for part in name.split("."):
        config = config[part]
    return config
