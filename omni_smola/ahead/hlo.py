"""A compiled program's own text: its instructions, and how often each one runs.

Only what is needed here is read: types, operands, which computation calls which, and the rounds of
loops.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_SHAPE = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,<=]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLS = re.compile(
    r"(condition|body|calls|to_apply|true_computation|false_computation)=%([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass
class Instruction:
    """One line: the computation it stands in, its name, type, opcode, operands, and the rest."""

    owner: str
    name: str
    type: str
    opcode: str
    operands: list[str]
    rest: str

    @property
    def bytes(self) -> int:
        """Of its result, without padding; of all parts of a tuple."""
        return type_bytes(self.type)

    @functools.cached_property
    def called(self) -> dict[str, str]:
        """Role -> name of a computation that it calls."""
        found = dict(_CALLS.findall(self.rest))
        if branches := _BRANCHES.search(self.rest):
            names = _NAME.findall(branches[1])
            found |= {f"branch {i}": name for i, name in enumerate(names)}
        return found


@dataclasses.dataclass
class Module:
    """A program: name -> instructions of every computation, and the name of the first one."""

    computations: dict[str, list[Instruction]]
    entry: str

    def running(self, rounds: int = 1) -> Iterator[tuple[str, Instruction, int]]:
        """Every instruction with the steps that it is part of, as (step, instruction, times).

        A step is a computation that is run in order: the first, a loop's body or condition, a
        branch. What is fused or wrapped belongs to the step that calls it.

        Args:
          rounds: of a loop whose end depends on its values.
        """
        yield from self._running(self.entry, self.entry, 1, rounds)

    def _running(
        self, name: str, step: str, times: int, rounds: int
    ) -> Iterator[tuple[str, Instruction, int]]:
        for instruction in self.computations.get(name, []):
            yield step, instruction, times
            called = instruction.called
            if instruction.opcode == "while":
                inner = times * self.rounds(instruction, rounds)
                yield from self._running(called["body"], called["body"], inner, rounds)
                continue
            for role, other in called.items():
                # The sums of a reduction are no program of their own.
                if role == "to_apply" and instruction.opcode != "call":
                    continue
                own = role in ("calls", "to_apply")
                yield from self._running(other, step if own else other, times, rounds)

    def rounds(self, loop: Instruction, unknown: int = 1) -> int:
        """How often a loop's body runs: as the compiler says, or as its condition does."""
        if known := _TRIPS.search(loop.rest):
            return int(known[1])
        bounds = self._bounds(loop.called["condition"])
        # A loop that may also end for another reason is one whose end depends on its values.
        return bounds[0] if len(bounds) == 1 else unknown

    def endless(self) -> list[str]:
        """Names of the loops of which the text does not say how often they run."""
        return [
            instruction.name
            for instructions in self.computations.values()
            for instruction in instructions
            if instruction.opcode == "while" and self.rounds(instruction, 0) == 0
        ]

    def _bounds(self, condition: str) -> list[int]:
        """Constants that a condition compares a counter with, if it does nothing else."""
        found = []
        for instruction in self.computations.get(condition, []):
            if instruction.opcode in ("and", "or", "not"):
                return []
            if instruction.opcode == "constant" and re.match(r"[su]32\[\]", instruction.type):
                found.append(int(instruction.operands[0]))
            for other in instruction.called.values():
                found += self._bounds(other)
        return found


def parse(text: str) -> Module:
    """Reads what `compiled.as_text()` gives."""
    computations: dict[str, list[Instruction]] = {}
    entry = owner = ""
    for line in text.splitlines():
        if not line.startswith((" ", "\t")):
            head = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
            if head and not line.startswith("HloModule"):
                owner = head[2]
                computations[owner] = []
                entry = owner if head[1] else entry
            continue
        if owner and (instruction := _instruction(owner, line)):
            computations[owner].append(instruction)
    return Module(computations, entry)


def type_bytes(text: str) -> int:
    """`(f32[2,3]{1,0}, s32[])` -> 28."""
    return sum(
        math.prod(int(size.lstrip("<=")) for size in sizes.split(",") if size) * _bits(dtype) // 8
        for dtype, sizes in _SHAPE.findall(text)
    )


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 0


def _instruction(owner: str, line: str) -> Instruction | None:
    head = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)
    if not head:
        return None
    rest = line[head.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    start = rest.find("(")
    if start < 0:
        return None
    close = _closing(rest, start)
    inside = rest[start + 1 : close]
    opcode = rest[:start]
    operands = [inside] if opcode == "constant" else _NAME.findall(inside)
    return Instruction(owner, head[1], kind, opcode, operands, rest[close + 1 :])


def _closing(text: str, start: int) -> int:
    """The place of the bracket that closes the one at `start`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    return len(text) - 1
