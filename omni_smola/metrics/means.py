"""The means that papers report over a suite."""

from collections.abc import Mapping
from statistics import fmean

from omni_smola.errors import UserError

OVERALL = "overall"


def suite_means(scores: Mapping[str, float], groups: Mapping[str, str]) -> dict[str, float]:
    """Mean of each group over its evaluated sets, and the mean of the groups.

    A group counts the same however many sets it has, and a set that was not evaluated counts for
    nothing. Values are taken as the metrics give them, CIDEr (which may pass 100) included. Source:
    MoME (Shen et al., 2024), whose groups are general, REC, REG and document.

    Args:
      scores: the reported value of each evaluated set.
      groups: the group of each set; it may know more sets than were evaluated.

    Returns:
      The mean of each group, in the order of their first sets, then `overall`.

    Raises:
      UserError: no scores, a set without a group, a group named "overall".
    """
    if not scores:
        raise UserError("there are no scores to average: evaluate at least one set.")
    members: dict[str, list[float]] = {}
    for name, score in scores.items():
        if groups.get(name, OVERALL) == OVERALL:
            raise UserError(
                f"the set {name} has the group {groups.get(name)!r}: name a group for it, and none "
                f"'{OVERALL}', which is the mean of all."
            )
        members.setdefault(groups[name], []).append(score)
    means = {group: fmean(values) for group, values in members.items()}
    return means | {OVERALL: fmean(means.values())}
