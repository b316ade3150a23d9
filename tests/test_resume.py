"""A run that is killed, again and again, ends with the bits of one that never was."""

import json
import pathlib
import random
import signal
import subprocess
import time

import pytest

from .conftest import MICRO_RUN, MICRO_STEPS, assert_same_checkpoint, steps_of

pytestmark = pytest.mark.slow


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL


def kill_at_a_random_moment(process: subprocess.Popen, rng: random.Random) -> None:
    """After some lines of progress and a part of a second: in a step, a save, or between."""
    left = rng.randint(2, 12)
    for line in process.stderr:
        left -= line.startswith("step ")
        if not left:
            break
    time.sleep(rng.uniform(0, 0.3))
    kill(process)


def kill_while_a_checkpoint_is_written(process: subprocess.Popen, workdir: pathlib.Path) -> None:
    """Once Orbax's temporary folder of a step is there, which is renamed when it is complete."""
    old = set((workdir / "checkpoints").glob("*tmp*"))
    while set((workdir / "checkpoints").glob("*tmp*")) <= old:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.0005)
    kill(process)


def kill_in_an_evaluation(process: subprocess.Popen) -> None:
    """Between the first and the second task of the last one."""
    for line in process.stderr:
        if f"-smola {MICRO_STEPS}: task 1 of 2" in line:
            break
    kill(process)


def losses(workdir: pathlib.Path) -> dict[int, set[float]]:
    """step -> every loss that was logged for it; a step done twice has two lines."""
    found: dict[int, set[float]] = {}
    for line in (workdir / "logs" / "scalars.jsonl").read_text().splitlines():
        values = json.loads(line)
        if "train/loss" in values:
            found.setdefault(values["step"], set()).add(values["train/loss"])
    return found


def test_a_killed_run_ends_bit_for_bit_like_one_never_killed(trained, command, tmp_path):
    never_killed, _ = trained
    workdir = tmp_path / "run"
    arguments = (
        *MICRO_RUN,
        "--config.log_every=1",
        "--config.eval.baseline=False",
        f"--workdir={workdir}",
    )
    rng = random.Random(0)
    reached = []
    for _ in range(2):
        with command.start(*arguments) as process:
            kill_at_a_random_moment(process, rng)
        reached.append(steps_of(workdir)[-1:])
    with command.start(*arguments, "--config.checkpoint.every=1") as process:
        kill_while_a_checkpoint_is_written(process, workdir)
    assert reached == sorted(reached) and steps_of(workdir)[-1:] < [MICRO_STEPS]
    with command.start(*arguments) as process:
        kill_in_an_evaluation(process)
    assert not list(workdir.glob("scores/test-smola*"))

    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    newest = steps_of(workdir)[-1]
    assert newest == MICRO_STEPS
    assert "resuming" in done.stderr
    assert not list((workdir / "checkpoints").glob("*tmp*"))

    assert_same_checkpoint(workdir, never_killed)
    # On the way, too: every step that was done twice gave the same loss.
    one, other = losses(never_killed), losses(workdir)
    assert all(len(values) == 1 for values in other.values())
    assert all(other[step] == values for step, values in one.items() if step in other)
    for task in ("mini_count",):
        name = f"predictions/test-smola-{MICRO_STEPS}/{task}.jsonl"
        assert (workdir / name).read_bytes() == (never_killed / name).read_bytes()
