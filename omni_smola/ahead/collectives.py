"""What chips send each other in a compiled program: kinds, how often, and how many bytes.

Bytes are those of the larger of an operation's input and output on one chip, times the rounds of
the loops it lies in: what an all-gather makes, what a reduce-scatter reads. A ring of n chips moves
(n - 1) / n of that over each chip's links, an all-reduce twice as much.
"""

import re
from typing import TypedDict

from omni_smola.ahead import hlo

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CHANNEL = re.compile(r"channel_id=(\d+)")


class Traffic(TypedDict):
    """Operations of one kind in a step, and their bytes on one chip."""

    count: int
    bytes: int


def count(module: hlo.Module, rounds: int = 1) -> dict[str, Traffic]:
    """Kind -> its traffic in one call of the program, of each chip.

    Args:
      rounds: of a loop whose end depends on its values.
    """
    traffic: dict[str, Traffic] = {}
    seen: set[tuple[str, str, str]] = set()
    sizes = {
        (name, instruction.name): instruction.bytes
        for name, instructions in module.computations.items()
        for instruction in instructions
    }
    for step, instruction, times in module.running(rounds):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        # One that is spread over several fusions, so that others run meanwhile, is in each of them.
        channel = _CHANNEL.search(instruction.rest)
        if instruction.owner != step and channel:
            if (step, kind, channel[1]) in seen:
                continue
            seen.add((step, kind, channel[1]))
        owner = instruction.owner
        if kind == "all-reduce" and "reduce-scatter" in owner:
            kind = "reduce-scatter"  # as the TPU's compiler writes it: an all-reduce, then a slice
        read = sum(sizes.get((owner, name), 0) for name in instruction.operands)
        made = instruction.bytes
        if instruction.opcode in ("all-gather-start", "collective-permute-start"):
            made -= read  # their result names the input, too
        entry = traffic.setdefault(kind, {"count": 0, "bytes": 0})
        entry["count"] += times
        entry["bytes"] += times * max(read, made)
    return {kind: traffic[kind] for kind in KINDS if kind in traffic}


def estimated_cycles(module: hlo.Module, rounds: int = 1) -> int:
    """The compiler's estimates of its instructions, summed through loops; 0 if it gives none.

    What it gives no estimate of, collectives for the most part, is not in the sum.
    """
    return sum(
        times * int(found[1])
        for step, instruction, times in module.running(rounds)
        # What a fusion holds has been estimated with the fusion.
        if instruction.owner == step and (found := _CYCLES.search(instruction.rest))
    )
