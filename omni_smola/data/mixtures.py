"""Named mixtures of tasks, and their registration with SeqIO."""

from collections.abc import Mapping

import seqio

from omni_smola.data import tasks
from omni_smola.data.task_table import TASKS
from omni_smola.errors import UserError

# name -> task -> rate
MIXTURES: dict[str, dict[str, float]] = {
    "mini": {row.name: 1.0 for row in TASKS if row.name.startswith("mini_")},
    "pretrain": {row.name: 1.0 for row in TASKS if row.name.startswith("pretrain_")},
}


def resolve(mixture: str | Mapping[str, float]) -> dict[str, float]:
    """The rates of a mixture given by name, by the name of one task, or by its rates.

    Rates are relative: they need not add up to anything.

    Raises:
      UserError: the mixture or one of its tasks is unknown, or a rate is not above zero.
    """
    if isinstance(mixture, str):
        if mixture not in MIXTURES:
            known = [*MIXTURES, *(n for n in seqio.TaskRegistry.names())]
            if mixture not in known:
                raise UserError(tasks.unknown_name("mixture or task", mixture, known))
            return {mixture: 1.0}
        return dict(MIXTURES[mixture])
    if not mixture:
        raise UserError("The mixture is empty; give it at least one task and its rate.")
    for name, rate in mixture.items():
        if tasks.get(name).row.held_out:
            raise UserError(
                f"The task '{name}' is held out: its protocol forbids training on it. Evaluate it "
                f"by --config.eval.tasks=...+{name}, and leave it out of the mixture."
            )
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1e9:
            raise UserError(
                f"The rate of task '{name}' is {rate!r}; it must be a number above zero. "
                "Leave the task out to give it none."
            )
    return {name: float(rate) for name, rate in mixture.items()}


MIXING = ("rates", "size", "group")


def weighted(
    rates: Mapping[str, float],
    split: str,
    mixing: str = "rates",
    temperature: float = 1.0,
    cap: int = 0,
) -> dict[str, float]:
    """The rates of a mixture, as they follow from how many examples its tasks have.

    Args:
      rates: registered task -> factor. split: whose examples are counted.
      mixing: "rates" takes the factors as they are; "size" multiplies them by
        min(examples, cap) ** (1 / temperature), as T5 does (arXiv 1910.10683); "group" does that
        inside each of MoME's groups (arXiv 2407.12709), which all get the same share.
      temperature: 1 is proportional; a large one is equal. cap: 0 is none.

    Raises:
      UserError: an argument out of range, or a task of no group where groups are wanted.
    """
    if mixing not in MIXING or not temperature > 0 or cap < 0:
        raise UserError(
            f"config.data has mixing={mixing!r}, temperature={temperature} and cap={cap}: mixing "
            f"is one of {', '.join(MIXING)}, a temperature is above 0 and a cap 0 or more."
        )
    if mixing == "rates":
        return dict(rates)
    found = {name: tasks.get(name) for name in rates}
    scaled = {}
    for name, rate in rates.items():
        size = found[name].source.num_input_examples(found[name].row.split(split))
        scaled[name] = rate * min(size, cap or size) ** (1 / temperature)
    if mixing == "size":
        return scaled
    totals: dict[str, float] = {}
    for name, rate in scaled.items():
        group = found[name].row.mome
        if not group:
            raise UserError(
                f"config.data.mixing is group, but the task '{name}' is in none of MoME's groups: "
                "leave it out, or set --config.data.mixing=size."
            )
        totals[group] = totals.get(group, 0.0) + rate
    return {name: rate / totals[found[name].row.mome] for name, rate in scaled.items()}


def register(name: str, mixture: str | Mapping[str, float]) -> seqio.Mixture:
    """Registers a mixture as a seqio.Mixture, replacing one of the same name.

    For use through `seqio.get_dataset`. Training reads `pipeline.train_batches` instead, whose
    order of examples can be reopened at any step.
    """
    rates = resolve(mixture)
    seqio.MixtureRegistry.remove(name)
    provider = seqio.Mixture(name, list(rates.items()))
    seqio.MixtureRegistry.add_provider(name, provider)
    return provider
