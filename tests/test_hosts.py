"""Runs of several processes on this machine, which find each other over the loopback.

Four devices in all, as one process of four, two of two and four of one, in a mesh whose tensor axis
lies inside of a host or spans two. What one host computes, writes and reads is what many do.
"""

import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from omni_smola.errors import UserError
from omni_smola.training import distributed

from . import forks
from .conftest import MICRO_RUN, QUICKLY, checkpointed, steps_of

Told = tuple[int, str, str]  # status, standard output and standard error of a process
DEVICES, STEPS, KEPT = 4, 6, 3
# Five examples in batches of four: of the second batch, hosts but the first have nothing.
RUN = (
    *(a for a in MICRO_RUN if not a.startswith(("--config.steps", "--config.log_every"))),
    f"--config.steps={STEPS}",
    f"--config.checkpoint.every={KEPT}",
    "--config.log_every=1",
    "--config.eval.examples=5",
    "--config.eval.baseline=False",
    "--config.decode.method=sample",
    "--config.mesh.data=1",
    "--config.mesh.fsdp=2",
    "--config.mesh.tensor=2",
    "--config.mesh.frozen=fsdp+tensor",
    "--config.faults.log_batches=True",
)


@contextlib.contextmanager
def together(
    command, workdir: pathlib.Path, processes: int, *arguments: str
) -> Iterator[list[forks.Fork]]:
    """The processes of a run, none of which is left when the context is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for i in range(processes):
        env = {
            **QUICKLY,
            "XLA_FLAGS": f"{QUICKLY['XLA_FLAGS']} "
            f"--xla_force_host_platform_device_count={DEVICES // processes}",
        }
        if processes > 1:
            env[distributed.COORDINATOR] = f"127.0.0.1:{port}"
            env[distributed.PROCESSES], env[distributed.PROCESS] = str(processes), str(i)
        started.append(
            command.start(*RUN, *arguments, f"--workdir={workdir}", stdout=subprocess.PIPE, env=env)
        )
    try:
        yield started
    finally:
        for process in started:
            process.kill()


def run(command, workdir: pathlib.Path, processes: int, *arguments: str) -> list[Told]:
    """The same, to their end."""
    with together(command, workdir, processes, *arguments) as started:
        return ended(started)


def ended(started: list[forks.Fork]) -> list[Told]:
    """Status, standard output and standard error of every process, when all have ended."""
    texts = [process.communicate(timeout=1800) for process in started]
    return [(p.returncode, *own) for p, own in zip(started, texts, strict=True)]


class Runs(dict):
    """Processes -> workdir and what they told, made when first asked for."""

    def __init__(self, command, folder: pathlib.Path):
        self._command, self._folder = command, folder

    def __missing__(self, processes: int) -> tuple[pathlib.Path, list[Told]]:
        workdir = self._folder / str(processes)
        told = run(self._command, workdir, processes)
        assert [status for status, _, _ in told] == [0] * processes, told
        self[processes] = (workdir, told)
        return self[processes]


@pytest.fixture(scope="module")
def runs(command, tmp_path_factory) -> Runs:
    return Runs(command, tmp_path_factory.mktemp("hosts"))


def spoken(out: str) -> list[str]:
    """Lines of a standard output without those, mixed up by threads, of collectives on CPUs."""
    return [line for line in out.splitlines() if not re.search(r"Gloo|peer ranks|^$", line)]


def losses(workdir: pathlib.Path) -> dict[int, list[float]]:
    """Step -> its loss, as often as the step was made."""
    found: dict[int, list[float]] = {}
    for line in map(json.loads, (workdir / "logs" / "scalars.jsonl").read_text().splitlines()):
        if "train/loss" in line:
            found.setdefault(line["step"], []).append(line["train/loss"])
    return found


def rows(workdir: pathlib.Path) -> dict[tuple[int, int], set[str]]:
    """(step, row of the global batch) -> the hashes of what the processes fed there."""
    found: dict[tuple[int, int], set[str]] = {}
    for file in (workdir / "logs").glob("batches-host-*.jsonl"):
        for line in map(json.loads, file.read_text().splitlines()):
            for i, digest in enumerate(line["rows"], line["first"]):
                found.setdefault((line["step"], i), set()).add(digest)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_the_global_batches_are_the_same(runs, processes):
    wanted, found = rows(runs[1][0]), rows(runs[processes][0])
    assert {(step, i) for step in range(STEPS) for i in range(4)} <= found.keys()
    assert all(found[place] == wanted[place] for place in found.keys() & wanted.keys())
    assert all(len(digests) == 1 for digests in found.values())
    files = list((runs[processes][0] / "logs").glob("batches-host-*.jsonl"))
    assert len(files) == processes


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_many_processes_give_the_losses_and_metrics_of_one(runs, processes):
    (alone, _), (workdir, _) = runs[1], runs[processes]
    wanted, found = losses(alone), losses(workdir)
    assert [*found] == [*wanted] == [*range(1, STEPS + 1)]
    for step, (loss,) in found.items():
        np.testing.assert_allclose(loss, wanted[step][0], rtol=1e-5, err_msg=str(step))
    name = f"test-smola-{STEPS}"
    for task in ("mini_count", "mini_choice"):
        file = f"predictions/{name}/{task}.jsonl"
        assert (workdir / file).read_text() == (alone / file).read_text()
        lines = [*map(json.loads, (workdir / file).read_text().splitlines())]
        assert len(lines) == 5 and len({line["prediction"] for line in lines}) > 1
    scores = [
        json.loads((w / f"scores/{name}.json").read_text())["tasks"] for w in (alone, workdir)
    ]
    for task, values in scores[0].items():
        assert values["scores"] == scores[1][task]["scores"]
    wanted, found = checkpointed(alone), checkpointed(workdir)
    assert found.keys() == wanted.keys() and found
    for path, value in wanted.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-3, atol=1e-5, err_msg=path)


@pytest.mark.slow
def test_the_primary_process_alone_tells_and_writes(runs):
    for processes in (2, 4):
        workdir, told = runs[processes]
        (_, out, err), *others = told
        assert "mini_count" in out and "| task" in (workdir / "report.md").read_text()
        assert [spoken(other) for _, other, _ in others] == [[]] * (processes - 1)
        assert f"mesh data 1 x fsdp 2 x tensor 2, {processes} processes" in err
        assert re.search(r"\[[\d:]{8}\] total +\d+ +[\d.]+ MiB +[\d.]+ MiB", err)
        for _, _, silent in others:
            assert not re.search(r"^(\[\d\d:|step |test-)", silent, re.MULTILINE), silent
        assert len(list((workdir / "logs").glob("events.out.tfevents.*"))) == 1


@pytest.mark.slow
def test_two_processes_answer_like_one(runs, command, tmp_path):
    image = tmp_path / "image.png"
    Image.new("RGB", (30, 20), "red").save(image)
    ask = ("--mode=predict", f"--image={image}", "--prompt=How many?")
    one, two = (run(command, runs[1][0], processes, *ask) for processes in (1, 2))
    assert [status for status, _, _ in one + two] == [0, 0, 0]
    answers = [spoken(out) for _, out, _ in one + two]
    assert answers[0] and answers == [answers[0], answers[0], []]


def until(process: forks.Fork, text: str) -> str:
    """Reads its standard error output up to the line that has the text, which it returns."""
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it ended without {text!r}")


@pytest.mark.slow
def test_what_one_of_two_processes_meets_ends_both_and_the_run_goes_on(runs, command, tmp_path):
    """One is stopped; one cannot read its part of the newest checkpoint, and is told to end; then a
    single process goes on."""
    steps = 40
    many = (f"--config.steps={steps}", "--config.faults.watchdog_minutes=0.5")
    with together(command, tmp_path, 2, *many) as (first, second):
        until(first, "step 10/")
        second.send_signal(signal.SIGSTOP)
        (told,) = ended([first])
        assert told[0] == 1 and re.search("no progress in .* for 0.5 minutes", told[2]), told
        assert "Thread 0x" in told[2]
        second.send_signal(signal.SIGCONT)
        assert ended([second])[0][0] != 0

    *_, before, newest = steps_of(tmp_path)
    saved = tmp_path / "checkpoints" / str(newest)
    parts = [*saved.glob("trainable/ocdbt.process_1/d/*")]
    largest = max(parts, key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    with together(command, tmp_path, 2, *many) as (first, second):
        until(
            first,
            f", on host 1): put aside as {saved}.corrupt-1, step {before} is used",
        )
        until(first, f"step {newest + 2}/")
        assert (tmp_path / "checkpoints" / f"{newest}.corrupt-1").is_dir()
        second.send_signal(signal.SIGTERM)
        told = ended([first, second])
    assert [status for status, _, _ in told] == [0, 0], told
    reached = int(re.search(rf"omni_smola: SIGTERM: saved step (\d+) of {steps}", told[0][2])[1])

    # The steps after the one before are made by one process as they were by two.
    *_, before, last = steps_of(tmp_path)
    assert last == reached
    shutil.rmtree(tmp_path / "checkpoints" / str(last))
    made_by_two = losses(tmp_path)
    (told,) = run(command, tmp_path, 1, *many)
    assert told[0] == 0 and f"resuming {tmp_path} at step {before}" in told[2], told
    assert steps_of(tmp_path)[-1] == steps
    made = losses(tmp_path)
    assert [*made] == [*range(1, steps + 1)]
    for step in range(before + 1, reached + 1):
        assert len(made[step]) == len(made_by_two[step]) + 1
    for step, again in made.items():
        np.testing.assert_allclose(again, again[0], rtol=1e-5, err_msg=str(step))
    found, alone = rows(tmp_path), rows(runs[1][0])
    assert {(step, i) for step in range(steps) for i in range(4)} == found.keys()
    assert all(len(digests) == 1 for digests in found.values())
    assert all(found[place] == alone[place] for place in found.keys() & alone.keys())


@pytest.mark.slow
def test_what_one_of_two_cannot_write_ends_nothing_and_a_lost_one_ends_the_other(command, tmp_path):
    """Files of one may not grow: what a full disk is. Then one is killed, and both start again."""
    steps = 40
    many = (f"--config.steps={steps}", "--config.faults.watchdog_minutes=5")
    full, unlimited = (6000, resource.RLIM_INFINITY), (resource.RLIM_INFINITY,) * 2
    with together(command, tmp_path, 2, *many) as (first, second):
        until(first, "step 4/")
        for host, process in enumerate((first, second)):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, full)
            line = until(first, "COULD NOT BE WRITTEN to")
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
            assert re.search(rf"CHECKPOINT OF STEP .* File too large.*, on host {host}\): ", line)
            assert f"step {steps_of(tmp_path)[-1]} is safe" in line
            failed = int(re.search(r"OF STEP (\d+) ", line)[1])
            assert failed not in steps_of(tmp_path)
            until(first, f"step {failed + 2 * KEPT + 1}/")
            assert steps_of(tmp_path)[-1] > failed
        second.send_signal(signal.SIGKILL)
        (status, _, told), _ = ended([first, second])
    assert status == 1 and "If another ended before, what it said is the reason" in told, told

    told = run(command, tmp_path, 2, *many)
    assert [status for status, _, _ in told] == [0, 0], told
    assert f"resuming {tmp_path} at step" in told[0][2]
    made = losses(tmp_path)
    assert [*made] == [*range(1, steps + 1)]
    assert any(len(again) > 1 for again in made.values())  # those that the lost one cost
    assert all(len(set(again)) == 1 for again in made.values())
    assert all(len(digests) == 1 for digests in rows(tmp_path).values())


# What the environment says -> what jax.distributed.initialize is given; None: nothing is joined.
STEP = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1", "SLURM_JOB_ID": "7"}
EXPLICIT = dict(zip((distributed.COORDINATOR, distributed.PROCESSES, distributed.PROCESS),
                    ("10.0.0.1:8476", "4", "3"), strict=True))  # fmt: skip
JOINED = {"coordinator_address": "10.0.0.1:8476", "num_processes": 4, "process_id": 3}


@pytest.mark.parametrize(
    ("environ", "arguments"),
    [
        ({}, None),
        (EXPLICIT, JOINED),
        (EXPLICIT | STEP, JOINED),
        (STEP, {}),
        (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, None),  # in a batch script, outside of srun
        ({"OMPI_COMM_WORLD_SIZE": "2"}, {}),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
    ],
)
def test_the_environment_says_whether_there_are_others(environ, arguments):
    assert distributed.arguments_of({"JAX_PLATFORMS": "cpu"} | environ) == arguments


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({distributed.PROCESS: ""}, r"NUM_PROCESSES=4, but .* needs .*JAX_PROCESS_ID=0 to N-1"),
        ({distributed.COORDINATOR: ""}, r"needs JAX_COORDINATOR_ADDRESS=HOST:PORT"),
        ({distributed.COORDINATOR: "10.0.0.1"}, r"needs JAX_COORDINATOR_ADDRESS=HOST:PORT"),
        ({distributed.PROCESSES: "four"}, r"JAX_NUM_PROCESSES=four.*set all three, or none"),
        ({distributed.PROCESS: "4"}, r"JAX_PROCESS_ID is 4 of JAX_NUM_PROCESSES=4.*from 0 to 3"),
    ],
)
def test_an_environment_that_says_half_is_refused(change, sentence):
    with pytest.raises(UserError, match=sentence):
        distributed.arguments_of(EXPLICIT | change)
