"""The table of docs/evidence/compile_table.md: what training and decoding cost on TPUs.

    python third_party/compile_table.py --folder=runs/compile

Each row is what `--mode=compile` finds for one config on one topology. A row whose file is in the
folder already is not compiled again, so that the table can be gone on with; the rows of a 55B model
take minutes each, on two cores.
"""

import argparse
import json
import pathlib
import re
import runpy
import sys
import time
from typing import Any, NamedTuple

import ml_collections

from omni_smola.ahead import programs, report, topology

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = runpy.run_path(str(ROOT / "configs" / "pali_smola.py"))["get_config"]

GIB = topology.GIB


class Place(NamedTuple):
    """What a backbone is compiled for; `data` is what `fsdp` and `tensor` leave of the chips."""

    topology: str
    batch: int
    fsdp: int
    tensor: int
    frozen: str = "tensor"


class Backbone(NamedTuple):
    """A row's model: its title, name in the config, pixels (0: its own), and places."""

    title: str
    name: str
    pixels: int
    places: tuple[Place, ...]


BACKBONES = (
    Backbone("tiny", "tiny", 0, (Place("v5e:4x4", 32, 16, 1), Place("v6e:2x2", 32, 4, 1))),
    Backbone(
        "PaliGemma 3B, 224 px",
        "paligemma_3b",
        0,
        (Place("v5e:4x4", 64, 16, 1), Place("v4:2x2x2", 32, 8, 1)),
    ),
    Backbone(
        "PaLI-3 5B, 812 px",
        "pali3",
        812,
        (Place("v5e:8x8", 32, 16, 4), Place("v5p:2x2x2", 16, 8, 1)),
    ),
    Backbone("PaLI-3 5B, 448 px", "pali3", 448, (Place("v5e:16x16", 256, 128, 2),)),
    # On chips of 16 GiB its 108 GB of frozen weights are divided over all of them.
    Backbone(
        "PaLI-X 55B, 756 px",
        "palix",
        756,
        (Place("v5e:16x16", 128, 32, 8, "fsdp+tensor"), Place("v5p:4x4x4", 128, 16, 4)),
    ),
    Backbone(
        "PaLI-X 55B, 448 px",
        "palix",
        448,
        (Place("v5e:16x16", 256, 32, 8, "fsdp+tensor"),),
    ),
)
EXPERTS = ("16-16-16", "48-48-48")


def config_of(backbone: Backbone, place: Place, experts: str) -> ml_collections.ConfigDict:
    """That of a row: what the config file has, and the mesh and batch of the place."""
    config = CONFIG(f"backbone={backbone.name},experts={experts},res={backbone.pixels}")
    config.backbone.dtype = config.backbone.param_dtype = "bfloat16"
    config.batch_size = config.eval.batch_size = place.batch
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = -1, place.fsdp, place.tensor
    config.mesh.frozen = place.frozen
    return config


def file_of(folder: pathlib.Path, backbone: Backbone, place: Place, experts: str) -> pathlib.Path:
    """Where a row is kept; what the programs are made of is not looked at: delete what is stale."""
    stem = place.topology.replace(":", "-")
    name = f"{backbone.name}-{backbone.pixels}-{experts}"
    return folder / name / "compile" / f"{stem}.json"


def kept(file: pathlib.Path) -> dict[str, Any]:
    """What the folder has of a row."""
    return json.loads(file.read_text()) if file.exists() else {"programs": {}, "errors": {}}


def measure(file: pathlib.Path, backbone: Backbone, place: Place, experts: str) -> None:
    """Compiles what the folder has not of a row, and keeps each program before the next one."""
    config, workdir = config_of(backbone, place, experts), str(file.parents[1])
    for name in programs.NAMES:
        before = kept(file)
        if name in before["programs"]:
            continue
        before["errors"].pop(name, None)  # its compiler may have been killed for want of memory
        found = report.measure(config, place.topology, workdir, say, (name,))
        for part in ("programs", "errors"):
            found[part] = before[part] | found[part]
        file.write_text(json.dumps(found, indent=2) + "\n")


def cells(backbone: Backbone, place: Place, experts: str, found: dict[str, Any]) -> list[list[str]]:
    """The table's lines of one row: one for each program."""
    lines = []
    for name in programs.NAMES:
        program = found["programs"].get(name)
        head = [backbone.title, experts, place.topology, name]
        if program is None:
            if name in found["errors"]:
                lines.append([*head, *["-"] * 8, found["errors"][name]])
            continue
        mesh = program["mesh"]
        head += [f"{program['batch_size']}", " x ".join(map(str, mesh.values()))]
        if not program["fits"]:
            lines.append([*head, "-", "no", *["-"] * 5])
            continue
        traffic = program["collectives"]
        moved = sum(kind["bytes"] for kind in traffic.values()) / GIB if traffic else None
        cycles = program["estimated_cycles"]
        lines.append(
            [
                *head,
                f"{program['argument_bytes'] / GIB:.2f} + {program['temporary_bytes'] / GIB:.2f}",
                f"{program['peak_bytes'] / GIB:.2f} of {program['hbm_bytes'] / GIB:g}",
                f"{program['flops'] / 1e12:.3g}",
                "-" if moved is None else f"{moved:.2f}",
                f"{cycles:.2e}" if cycles else "-",
                f"{program['trace_seconds'] + program['compile_seconds']:.0f}",
                f"{program['host_peak_bytes'] / GIB:.1f}",
            ]
        )
    return lines


HEAD = (
    "backbone",
    "experts",
    "topology",
    "program",
    "examples",
    "data x fsdp x tensor",
    "arguments + temporaries, GiB",
    "peak, GiB",
    "TFLOP",
    "collectives, GiB",
    "cycles",
    "compiled in, s",
    "host, GiB",
)


def say(text: str) -> None:
    """Tells what happens, on the standard error."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Compiles what is missing, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where rows are kept")
    parser.add_argument("--only", default="", help="regular expression of rows to compile")
    parser.add_argument("--kept", action="store_true", help="compile nothing: the rows there are")
    arguments = parser.parse_args()
    lines = [list(HEAD), ["---"] * len(HEAD)]
    rows = [
        (backbone, place, experts)
        for backbone in BACKBONES
        for experts in EXPERTS
        for place in backbone.places
    ]
    for backbone, place, experts in rows:
        label = f"{backbone.name} {backbone.pixels} {experts} {place.topology}"
        if re.search(arguments.only, label):
            file = file_of(arguments.folder, backbone, place, experts)
            if not arguments.kept:
                say(label)
                measure(file, backbone, place, experts)
            lines += cells(backbone, place, experts, kept(file))
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))


if __name__ == "__main__":
    main()
