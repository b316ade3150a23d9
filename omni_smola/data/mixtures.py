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
