"""Scores of parts of a split: simple and complex, human and augmented, subjects, fields."""

from collections.abc import Callable, Sequence

from omni_smola.errors import UserError


def by_group(
    metric: Callable[[Sequence[str], Sequence[Sequence[str]]], dict[str, float]],
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    groups: Sequence[str] | None,
) -> dict[str, float]:
    """Any metric of a split, then its first value for each group of the examples.

    A group is scored as a split of its own: CIDEr counts the captions of the group alone.

    Args:
      metric: a value of `omni_smola.metrics.METRICS`.
      predictions: n strings.
      references: n lists of strings.
      groups: n strings, the names of the groups of each example with spaces between: "simple", or
        "NAT IMG G1-6" where it belongs to three, or "". None for no groups.

    Returns:
      What the metric returns; then `name/group`, by the group's name, where `name` is the first
      of these values.

    Raises:
      UserError: another number of groups than of predictions; whatever the metric raises.
    """
    scores = metric(predictions, references)
    if groups is None:
        return scores
    if isinstance(groups, str) or len(groups) != len(predictions):
        raise UserError(
            f"groups must be a list of one string for each of {len(predictions)} examples, and it "
            f"has {len(groups)}: give '' for an example that belongs to none."
        )
    name = next(iter(scores))
    members: dict[str, list[int]] = {}
    for i, names in enumerate(groups):
        for group in dict.fromkeys(names.split()):
            members.setdefault(group, []).append(i)
    for group, rows in sorted(members.items()):
        part = metric([predictions[i] for i in rows], [references[i] for i in rows])
        scores = scores | {f"{name}/{group}": part[name]}
    return scores
