"""Compiles one program for a topology and reads what the compiler says of it."""

import re
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from omni_smola.ahead import collectives, flops, hlo, programs
from omni_smola.ahead.topology import Topology, devices
from omni_smola.errors import first_line

_FULL = re.compile(r"RESOURCE_EXHAUSTED|[Rr]an out of memory")


def analyse(name: str, config: ml_collections.ConfigDict, topology: Topology) -> dict[str, Any]:
    """Compiles the program `name` of a config ("train", "decode").

    Returns:
      JSON-able values by name: see `report`. All bytes and traffic are of one chip.

    Raises:
      UserError: as a run of the config would, or for a topology that the compiler does not know.
      JaxRuntimeError: the compiler fails.
    """
    program = programs.make(name, config, devices(topology))
    clock = _Clock()
    traced = program.jitted.trace(*program.arguments)
    counted = flops.count(traced.jaxpr)
    result: dict[str, Any] = {
        "program": name,
        "mesh": dict(program.mesh.shape),
        **program.facts,
        "hbm_bytes": topology.chip.hbm,
        "flops": counted.total // topology.chips,
        "flops_of_loops_at_most": counted.loops,
        "seconds_at_peak": counted.total / topology.chips / topology.chip.flops,
    }
    lowered = traced.lower()
    result["trace_seconds"] = clock.lap()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not _FULL.search(str(error)):
            raise
        print(error, file=sys.stderr)  # what takes how much, for the log
        return result | {"fits": False, "why": _memory_line(str(error))}
    result["compile_seconds"] = clock.lap()
    result |= _memory(compiled)
    result["fits"] = result["peak_bytes"] <= topology.chip.hbm
    return result | _text(compiled, program.rounds)


def _memory(compiled: Any) -> dict[str, int]:
    stats = compiled.memory_analysis()
    return {
        "argument_bytes": stats.argument_size_in_bytes,
        "output_bytes": stats.output_size_in_bytes,
        # Outputs that take the place of arguments: the state of a training step.
        "in_place_bytes": stats.alias_size_in_bytes,
        "temporary_bytes": stats.temp_size_in_bytes,
        "code_bytes": stats.generated_code_size_in_bytes,
        "peak_bytes": stats.peak_memory_in_bytes,
    }


def _text(compiled: Any, rounds: int) -> dict[str, Any]:
    """What the program's own text tells; None where the compiler does not give it."""
    try:
        module = hlo.parse(compiled.as_text())
    except jax.errors.JaxRuntimeError as error:
        # A libtpu that is newer than jaxlib writes what jaxlib cannot read.
        return {"collectives": None, "estimated_cycles": None, "text": first_line(error)}
    return {
        "collectives": collectives.count(module, rounds),
        "estimated_cycles": collectives.estimated_cycles(module, rounds) or None,
        # Decoding has one, which is counted for the longest answer.
        "loops_of_unknown_length": len(module.endless()),
    }


def _memory_line(text: str) -> str:
    """The line of the compiler's message that says how much it lacks."""
    found = re.search(r"(Used|total memory required).*?(?=\.?(\s|$)(?![\w(]))", text)
    line = found[0] if found else text.strip().splitlines()[0]
    return line.removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")


class _Clock:
    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self._now, self._last = now, now()

    def lap(self) -> float:
        """Seconds since the last one."""
        last, self._last = self._last, self._now()
        return round(self._last - last, 1)
