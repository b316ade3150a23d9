"""Compiles in a process of its own, which the compiler may end without hurting anyone.

    python -m omni_smola.ahead.child REQUEST.json RESULT.json

The request has config, topology and program; the result has either `result`, of
`analysis.analyse`, or `error`, a sentence.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import ml_collections

from omni_smola.errors import UserError, first_line

# JAX itself stays on the CPU, and the compiler neither looks for TPUs in the machine or the network
# nor minds another process that has it open.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
# Settings that are meant for programs of this machine.
_DROPPED = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS", "JAX_COMPILATION_CACHE_DIR")


def analyse(
    program: str, config: ml_collections.ConfigDict, topology: str, log: pathlib.Path
) -> dict[str, Any]:
    """`analysis.analyse` in a child; what it writes to its error stream goes to the file `log`.

    Raises:
      UserError: what the child's own was, or what ended it.
    """
    paths = {kind: log.with_suffix(f".{kind}.json") for kind in ("request", "result")}
    request = {
        "config": json.loads(config.to_json_best_effort()),
        "topology": topology,
        "program": program,
    }
    paths["request"].write_text(json.dumps(request))
    paths["result"].unlink(missing_ok=True)
    try:
        command = [sys.executable, "-m", __name__, str(paths["request"]), str(paths["result"])]
        with log.open("w") as stream:
            status = subprocess.run(
                command, env=_environment(os.environ), stdout=stream, stderr=stream
            ).returncode
        answer = json.loads(paths["result"].read_text()) if paths["result"].exists() else {}
    finally:
        for path in paths.values():
            path.unlink(missing_ok=True)
    if "error" in answer:
        raise UserError(answer["error"])
    if "result" not in answer:
        raise UserError(
            f"The compiler ended on the {program} program for {topology}, {_ended(status)}: "
            f"{_last_line(log)} All it said is in {log}. Try another topology or another mesh, or "
            "another version of libtpu."
        )
    return answer["result"]


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in given.items() if name not in _DROPPED}
    root = str(pathlib.Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, given.get("PYTHONPATH", "")]))
    return kept | ENVIRONMENT | {"PYTHONPATH": path}


def _ended(status: int) -> str:
    """In words, what a process ended by."""
    if status == -signal.SIGKILL:
        return "killed (by the system where memory runs out)"
    if status < 0:
        return f"by the signal {signal.Signals(-status).name}"
    return f"with status {status}"


def _last_line(log: pathlib.Path) -> str:
    """The last line that says something: not a stack's frame, not a line of marks."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    told = [
        line
        for line in lines
        if any(mark in line for mark in ("Error", "F0000", "Check failed", "INTERNAL", "Fatal"))
    ]
    found = (told or [line for line in lines if line] or ["it said nothing"])[-1]
    return found[:300].rstrip(".") + "."


def main(request: str, result: str) -> None:
    """The child's work."""
    import jax

    from omni_smola.ahead import analysis
    from omni_smola.ahead.topology import parse

    asked = json.loads(pathlib.Path(request).read_text())
    config = ml_collections.ConfigDict(asked["config"])
    topology = parse(asked["topology"])
    try:
        answer = {"result": analysis.analyse(asked["program"], config, topology)}
    except UserError as error:
        answer = {"error": str(error)}
    except jax.errors.JaxRuntimeError as error:
        answer = {
            "error": f"The compiler cannot make the {asked['program']} program for "
            f"{topology.name}: {first_line(error).rstrip('.')}. Try another topology or "
            "another mesh."
        }
    if "result" in answer:
        answer["result"]["host_peak_bytes"] = _peak_memory()
    pathlib.Path(result).write_text(json.dumps(answer))


def _peak_memory() -> int:
    """Bytes of memory that this process has had at most; the compiler runs on Linux only."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
