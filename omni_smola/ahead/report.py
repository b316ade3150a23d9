"""What a config costs on a topology: compiled program by program, as a table and as JSON."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from omni_smola.ahead import child, programs
from omni_smola.ahead import topology as topologies
from omni_smola.errors import UserError

GIB = topologies.GIB


def measure(
    config: ml_collections.ConfigDict,
    topology: str | None,
    workdir: str,
    say: Callable[[str], None] = lambda text: None,
    names: tuple[str, ...] = programs.NAMES,
) -> dict[str, Any]:
    """Compiles a config's programs; writes and returns what is found, JSON-able.

    The file is `{workdir}/compile/{topology}.json`. What the compiler could not make has its
    sentence under `errors`.

    Raises:
      UserError: no such topology, or no compiler.
    """
    wanted = topologies.parse(topology)
    topologies.require_compiler()
    folder = pathlib.Path(workdir) / "compile"
    folder.mkdir(parents=True, exist_ok=True)
    stem = wanted.name.replace(":", "-")
    found: dict[str, Any] = {
        "topology": wanted.name,
        "chips": wanted.chips,
        "chip_hbm_bytes": wanted.chip.hbm,
        "chip_peak_flops": wanted.chip.flops,
        "programs": {},
        "errors": {},
        "config": json.loads(config.to_json_best_effort()),
    }
    for name in names:
        say(f"{name}: compiling for {wanted.name}, {wanted.chips} chips")
        try:
            found["programs"][name] = child.analyse(
                name, config, wanted.name, folder / f"{stem}-{name}.log"
            )
        except UserError as error:
            found["errors"][name] = str(error)
    found["file"] = str(folder / f"{stem}.json")
    pathlib.Path(found["file"]).write_text(json.dumps(found, indent=2) + "\n")
    return found


def complaints(found: Mapping[str, Any]) -> list[str]:
    """A sentence for each thing that did not compile, or does not fit."""
    sentences = list(dict.fromkeys(found["errors"].values()))
    for name, program in found["programs"].items():
        if not program["fits"]:
            sentences.append(
                f"The {name} program does not fit a chip of {found['topology']} "
                f"({_why_not(program)}): use more chips, divide more "
                "(--config.mesh.frozen=fsdp+tensor, --config.mesh.tensor), or lower "
                f"--config.{'batch_size' if name == 'train' else 'eval.batch_size'}."
            )
    return sentences


def table(found: Mapping[str, Any]) -> str:
    """The programs side by side, a line for each quantity."""
    columns = list(found["programs"].values())
    rows = [("", *(program["program"] for program in columns))]
    for title, cell in _LINES:
        cells = [cell(program) for program in columns]
        if any(cells):
            rows.append((title, *(text or "-" for text in cells)))
    for kind in dict.fromkeys(kind for p in columns for kind in p.get("collectives") or {}):
        cells = [(p.get("collectives") or {}).get(kind) for p in columns]
        rows.append((kind, *(_traffic(cell) if cell else "-" for cell in cells)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head = (
        f"{found['topology']}: {found['chips']} chips of {found['chip_hbm_bytes'] / GIB:g} GiB and "
        f"{found['chip_peak_flops'] / 1e12:g} TFLOP/s; all below is of one chip"
    )
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    return "\n".join([head, *lines, found["file"]] if columns else [head, found["file"]])


def _amount(size: int) -> str:
    """Bytes in the unit that leaves them at least 1."""
    units = ("GiB", GIB), ("MiB", 2**20), ("KiB", 2**10), ("B", 1)
    unit, least = next((unit, least) for unit, least in units if size >= least or least == 1)
    return f"{size / least:.2f} {unit}" if least > 1 else f"{size} B"


def _bytes(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda program: _amount(program[name]) if name in program else ""


def _peak(program: Mapping[str, Any]) -> str:
    if "peak_bytes" not in program:
        return "too much"
    share = 100 * program["peak_bytes"] / program["hbm_bytes"]
    return f"{_amount(program['peak_bytes'])} ({share:.1f}%)"


def _why_not(program: Mapping[str, Any]) -> str:
    return program.get("why") or f"it needs {_amount(program['peak_bytes'])}"


def _traffic(traffic: Mapping[str, int]) -> str:
    return f"{traffic['count']:,} x, {_amount(traffic['bytes'])}"


_LINES: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("mesh", lambda p: " x ".join(f"{axis} {size}" for axis, size in p["mesh"].items())),
    ("examples of all chips", lambda p: f"{p['batch_size']:,}"),
    ("frozen parameters of all chips", lambda p: f"{p['frozen_parameters'] / 1e6:,.1f}M"),
    ("trained parameters of all chips", lambda p: f"{p['trained_parameters'] / 1e6:,.1f}M"),
    ("cache of all chips", _bytes("cache_bytes_of_all_chips")),
    ("arguments", _bytes("argument_bytes")),
    ("outputs", _bytes("output_bytes")),
    ("  in the arguments' place", _bytes("in_place_bytes")),
    ("temporaries", _bytes("temporary_bytes")),
    ("peak", _peak),
    ("fits", lambda p: "yes" if p["fits"] else "no"),
    ("TFLOP, loops counted", lambda p: f"{p['flops'] / 1e12:,.3g}"),
    ("  at the chip's peak", lambda p: f"{p['seconds_at_peak']:.3g} s"),
    (
        "estimated cycles",
        lambda p: f"{p['estimated_cycles']:.3g}" if p.get("estimated_cycles") else "",
    ),
    (
        "traced, compiled in",
        lambda p: (
            f"{p['trace_seconds']:.0f} s, {p['compile_seconds']:.0f} s"
            if "compile_seconds" in p
            else ""
        ),
    ),
    ("memory of the host for it", _bytes("host_peak_bytes")),
)
