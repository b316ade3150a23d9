"""Which tensors of a checkpoint make which parameter, and all that does not fit, in one error."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from omni_smola.errors import UserError
from omni_smola.pretrained.reader import FLOATING, Reader
from omni_smola.pretrained.rules import Family, Rule
from omni_smola.pretrained.sentences import fitted, some

_ROW = "[{}]"
_WIDE = 70  # characters of all names of one tensor
_MANY = 3  # missing tensors that are counted


@dataclasses.dataclass(frozen=True)
class Part:
    """One tensor of the checkpoint, or one row of it, that is a parameter or a layer of one.

    Attributes:
      copies: (name, row) of the other tensors that are to hold the same.
    """

    rule: Rule
    name: str
    row: int | None
    layer: int | None
    copies: tuple[tuple[str, int | None], ...] = ()

    def shape(self, reader: Reader) -> tuple[int, ...]:
        whole = reader.entries[self.name].shape
        return whole if self.row is None else whole[1:]

    def convert(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if self.rule.transform is not None:
            tensor = self.rule.transform(tensor)
        if self.rule.fit is not None and tensor.shape != shape:
            tensor = self.rule.fit(tensor, shape)
        return tensor

    def read(self, reader: Reader, shape: tuple[int, ...]) -> np.ndarray:
        if self.row is None:
            return self.convert(reader.read(self.name), shape)
        return self.convert(reader.read(self.name, slice(self.row, self.row + 1))[0], shape)


def names(family: Family, wanted: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Of each tensor that a plan looks for, the names that it may have in a checkpoint."""
    for rule in family.rules:
        if rule.ours in wanted:
            layers = range(wanted[rule.ours].shape[0]) if "{}" in rule.theirs else [None]
            for layer in layers:
                yield tuple(_name(p, rule, layer)[0] for p in (rule.theirs, *rule.others))


def make_plan(
    reader: Reader, family: Family, wanted: Mapping[str, Any], model_type: str
) -> dict[str, list[Part]]:
    """What every wanted parameter is made of; raises UserError if anything does not fit."""
    rules = {rule.ours: rule for rule in family.rules}
    plan: dict[str, list[Part]] = {}
    problems = [
        f"no name for {ours} in a {family.name}" for ours in sorted(wanted.keys() - rules.keys())
    ]
    known: set[str] = set()
    for ours, rule in rules.items():
        if ours in wanted:
            shape = tuple(wanted[ours].shape)
            layers = range(shape[0]) if "{}" in rule.theirs else [None]
            plan[ours] = []
            for layer in layers:
                part = _find(reader, rule, layer, known)
                if part is None:
                    problems.append(f"missing {_asked(rule, layer)}")
                    continue
                plan[ours].append(part)
                problems += _misfit(reader, part, shape if layer is None else shape[1:])
    problems += _deeper(reader, plan)
    skipped = [
        _pattern(name)
        for rule in family.rules
        if rule.ours not in wanted
        for name in (rule.theirs, *rule.others)
    ]
    unread = re.compile("|".join(f"(?:{p})" for p in (*skipped, *family.ignored)) or r"(?!)")
    problems += [
        f"unexpected {name}"
        for name in sorted(reader.entries.keys() - known)
        if not unread.fullmatch(name)
    ]
    if problems:
        raise UserError(_unfit(reader, family, problems, model_type))
    return plan


def _find(reader: Reader, rule: Rule, layer: int | None, known: set[str]) -> Part | None:
    """The part for one layer; every name that the checkpoint has for it becomes known."""
    found: list[tuple[str, int | None]] = []
    for pattern in (rule.theirs, *rule.others):
        name, row = _name(pattern, rule, layer)
        if name in reader.entries:
            known.add(name)
            shape = reader.entries[name].shape
            if row is None or (shape and row < shape[0]):
                found.append((name, row))
    return Part(rule, *found[0], layer, tuple(found[1:])) if found else None


def _name(pattern: str, rule: Rule, layer: int | None) -> tuple[str, int | None]:
    """Name in the checkpoint, and the row of it that is meant."""
    if layer is None:
        return pattern, None
    index = rule.first + rule.step * layer
    if pattern.endswith(_ROW):
        return pattern.removesuffix(_ROW), index
    return pattern.replace("{}", str(index)), None


def _asked(rule: Rule, layer: int | None) -> str:
    found = [_name(pattern, rule, layer) for pattern in (rule.theirs, *rule.others)]
    first, *others = (name if row is None else f"{name}[{row}]" for name, row in found)
    asked = " or ".join((first, *others))
    return asked if len(asked) <= _WIDE else f"{first} (or {len(others)} other names)"


def _misfit(reader: Reader, part: Part, shape: tuple[int, ...]) -> Iterator[str]:
    """What is wrong with the type or shape of a tensor, as nothing of it has been read."""
    entry, found = reader.entries[part.name], part.shape(reader)
    where = part.name if part.row is None else f"{part.name}[{part.row}]"
    if entry.dtype not in FLOATING:
        yield f"{where} holds {entry.dtype}, which is none of {', '.join(FLOATING)}"
        return
    # One zero, seen as a tensor of any size.
    empty = np.broadcast_to(np.zeros((), FLOATING[entry.dtype]), found)
    try:
        became = part.convert(empty, shape).shape
    except UserError as error:
        yield f"{where}: {error}"
    except (ValueError, IndexError, TypeError):  # what NumPy raises for axes that are not there
        yield f"{where} of shape {found} cannot be {part.rule.ours} of shape {shape}"
    else:
        if became != shape:
            how = "" if became == found else f", as ours {became},"
            yield f"{where} is {found}{how} instead of {shape}"


def _deeper(reader: Reader, plan: Mapping[str, list[Part]]) -> Iterator[str]:
    """Tensors that hold more layers than are wanted of them."""
    rows: dict[str, set[int]] = {}
    for part in (part for parts in plan.values() for part in parts if part.row is not None):
        rows.setdefault(part.name, set()).add(part.row)
    for name, used in sorted(rows.items()):
        if len(used) < reader.entries[name].shape[0]:
            yield f"{name} has {reader.entries[name].shape[0]} layers instead of {len(used)}"


def _pattern(name: str) -> str:
    """A regular expression for all names that a rule means."""
    return re.escape(name.removesuffix(_ROW)).replace(r"\{\}", r"\d+")


def _unfit(reader: Reader, family: Family, problems: list[str], model_type: str) -> str:
    kind = f" (a {model_type!r} by its config.json)" if model_type else ""
    missing = sum(problem.startswith("missing ") for problem in problems)
    how = getattr(reader, "how", "")
    stored = getattr(reader, "stored", {}).values() or reader.entries
    start = (
        f"The checkpoint {reader.path}{kind} does not hold the {family.name} of this config: "
        + (f"{missing} tensors are missing; " if missing > _MANY else "")
    )
    end = (
        f". Its own names are such as {some(stored)}{f', read {how}' if how else ''}. Choose the "
        "backbone that it was made for (--config.backbone.name, or auto), or another "
        "--config.backbone.init."
    )
    return fitted(start, problems, end)
