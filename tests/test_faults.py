"""Faults of pods, disks and data, made for real, and what the user sees of each."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from .conftest import MICRO_RUN, MICRO_STEPS, QUICKLY, ROOT, assert_same_checkpoint, steps_of

pytestmark = pytest.mark.slow
QUICK = ("--config.eval.baseline=False", "--config.log_every=1")
# Once there is a pipe `hang` beside an image, reading the image waits for it.
HANGING_READS = """
from omni_smola.data import images

read_file = images.read_file

def hanging(path, *rest):
    pipe = path.parent / "hang"
    if pipe.exists():
        pipe.read_bytes()
    return read_file(path, *rest)

images.read_file = hanging
"""


@contextlib.contextmanager
def patience(process, seconds: int = 600):
    """A process that hangs in here is ended, after the stack traces of its threads."""
    timer = threading.Timer(seconds, process.send_signal, [signal.SIGABRT])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def lines_until(process, text: str) -> list[str]:
    """What it tells, up to the line that has the text; the test fails where there is none."""
    lines = []
    with patience(process):
        for line in process.stderr:
            lines.append(line)
            if text in line:
                return lines
    raise AssertionError("".join(lines))


def rest(process) -> tuple[int, str]:
    """Exit status and what it tells from here on."""
    with patience(process):
        told = process.stderr.read()
        return process.wait(), told


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, size: str):
    """A tmpfs of its own on the folder; the test is skipped where mounting is not permitted."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here; RLIMIT_FSIZE stands in for it below")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_sigterm_in_an_evaluation_and_a_truncated_checkpoint(trained, command, tmp_path):
    never, _ = trained
    workdir = tmp_path / "run"
    arguments = (
        *MICRO_RUN,
        *QUICK,
        "--config.checkpoint.every=8",
        "--config.checkpoint.keep_best=1",
        "--config.eval.every=12",
        f"--workdir={workdir}",
    )
    with command.start(*arguments) as process:
        lines_until(process, "test-smola 12: task 1 of 2")
        process.send_signal(signal.SIGTERM)
        status, told = rest(process)
    assert status == 0, told
    assert f"SIGTERM: saved step 12 of {MICRO_STEPS}; the same command goes on" in told
    assert "Traceback" not in told
    scores = workdir / "scores" / "test-smola-12.json"
    assert steps_of(workdir) == [8, 12] and not scores.exists()

    with command.start(*arguments) as process:  # the evaluation that was given up comes first
        lines = lines_until(process, "step 15/")
        process.send_signal(signal.SIGTERM)
        status, told = rest(process)
    assert status == 0, told
    assert any("test-smola 12: task 2 of 2" in line for line in lines) and scores.exists()
    assert (workdir / "checkpoints" / "12" / "metrics").is_dir()

    *_, before, newest = steps_of(workdir)
    saved = workdir / "checkpoints" / str(newest)
    file = max(saved.glob("trainable/ocdbt*/d/*"), key=lambda path: path.stat().st_size)
    os.truncate(file, file.stat().st_size // 2)
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    assert f"the checkpoint {saved} is damaged (" in done.stderr
    assert f"put aside as {saved}.corrupt-1, step {before} is used" in done.stderr
    assert f"at step {before}" in done.stderr
    assert (workdir / "checkpoints" / f"{newest}.corrupt-1").is_dir()
    assert steps_of(workdir)[-1] == MICRO_STEPS
    assert_same_checkpoint(workdir, never)


def test_a_full_disk_ends_nothing_and_the_old_checkpoint_stays(trained, command, tmp_path):
    """Room for one checkpoint; a file that fills the rest is removed when the first save fails."""
    never, _ = trained
    size = sum(p.stat().st_size for p in (never / "checkpoints" / "40").rglob("*") if p.is_file())
    workdir = tmp_path / "disk"
    workdir.mkdir()
    with small_disk(workdir, "64m"):
        free = shutil.disk_usage(workdir).free
        (workdir / "filler").write_bytes(bytes(free - size * 3 // 2 - 200_000))
        arguments = (*MICRO_RUN, *QUICK, f"--workdir={workdir}")
        with command.start(*arguments) as process:
            lines_until(process, "COULD NOT BE WRITTEN")
            kept = steps_of(workdir)
            (workdir / "filler").unlink()
            status, told = rest(process)
        assert status == 0, told
        assert kept == [5]
        assert steps_of(workdir)[-1] == MICRO_STEPS
        assert_same_checkpoint(workdir, never)


FULL = """
import resource, signal, sys
import jax.numpy as jnp
from omni_smola.errors import UserError
from omni_smola.training.checkpoint import Checkpoints
from omni_smola.training.step import TrainState

def state(step):
    return TrainState(jnp.int32(step), {"w": jnp.arange(300_000.0) + step}, {"m": jnp.ones(9)})

checkpoints = Checkpoints(sys.argv[1], {"seed": 0})
checkpoints.save(state(5))
checkpoints.wait()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), hard))
checkpoints.save(state(10))
checkpoints.wait()
try:
    checkpoints.finish(state(10))
except UserError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(checkpoints.restore(state(0)).trainable["w"][0])
checkpoints.save(state(15))
checkpoints.finish(state(15))
print(checkpoints.latest())
"""


@pytest.mark.parametrize("room", [1024, 4096])
def test_a_last_save_that_fails_is_an_error(tmp_path, room):
    """Files may not grow, or not beyond what is tried before a save: what a full disk is."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(room)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    sentence, kept, latest = done.stdout.splitlines()
    assert "The last checkpoint, of step 10, could not be written" in sentence, done.stderr
    assert "goes on at step 5" in sentence
    assert done.stderr.count("CHECKPOINT OF STEP 10 COULD NOT BE WRITTEN") == 2  # tried twice
    assert "step 5 is safe" in done.stderr
    assert (float(kept), int(latest)) == (5.0, 15)
    assert not list((tmp_path / "checkpoints").glob("*tmp*"))


def test_updates_that_are_not_finite_end_the_run_with_the_batch(command, tmp_path):
    done = command(
        *MICRO_RUN,
        *QUICK,
        "--config.optimizer.learning_rate=1e36",
        "--config.optimizer.clip_norm=0",
        "--config.faults.bad_steps=3",
        f"--workdir={tmp_path}",
        env=QUICKLY,
    )
    assert done.returncode == 2, done.stderr
    assert "SKIPPED, nothing learned from it" in done.stderr and "(3 in a row" in done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("omni_smola: The updates of 3 steps in a row")
    (file,) = tmp_path.glob("bad_batch-step-*.npz")
    assert str(file) in sentence
    with np.load(file) as batch:  # which refuses pickled objects
        assert batch["image"].shape == (4, 24, 24, 3) and batch["target"].shape[0] == 4
    scalars = (tmp_path / "logs" / "scalars.jsonl").read_text()
    assert '"train/skipped_steps": 3.0' in scalars and "NaN" not in scalars


@pytest.fixture
def folder(tmp_path):
    """A folder of captions whose images are small PNGs."""
    from PIL import Image

    path = tmp_path / "mine"
    (path / "img").mkdir(parents=True)
    lines = []
    for i in range(12):
        Image.new("RGB", (24, 24), (20 * i, 0, 99)).save(path / f"img/{i}.png")
        lines.append(json.dumps({"image": f"img/{i}.png", "captions": [f"number {i}"]}))
    for split in ("train", "test"):
        (path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return path


def own_data(folder: pathlib.Path, workdir: pathlib.Path) -> tuple[str, ...]:
    config = folder.parent / "own.py"
    config.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom configs import pali_smola\n"
        "def get_config(arg=None):\n    config = pali_smola.get_config(arg)\n"
        f"    config.data.sources = {{'mine': {str(folder)!r}}}\n"
        "    config.data.rates = {'mine': 1.0}\n    return config\n"
    )
    run = [f"--config={config}:experts=2-2-2,rank=2", *MICRO_RUN[1:], *QUICK]
    return (*run, f"--workdir={workdir}")


def test_a_read_that_never_returns_is_ended_with_all_stack_traces(folder, command, tmp_path):
    """Reading waits for a pipe that nobody writes to: a network file system that hangs."""
    arguments = own_data(folder, tmp_path / "run")
    many = ("--config.steps=100000", "--config.faults.watchdog_minutes=0.25")
    with command.after(HANGING_READS, *arguments, *many, env=QUICKLY) as process:
        lines_until(process, "step 5/")
        os.mkfifo(folder / "img" / "hang")
        status, told = rest(process)
    assert status == 1, told
    assert "no progress in the batch of step" in told and "watchdog_minutes" in told
    assert "Thread 0x" in told and "image_bytes" in told  # where the data's thread is waiting
    assert steps_of(tmp_path / "run")


def test_damaged_images_are_left_out_and_told(folder, command, tmp_path):
    whole = (folder / "img/3.png").read_bytes()
    (folder / "img/3.png").write_bytes(whole[: len(whole) - 30])
    arguments = own_data(folder, tmp_path / "run")
    failed = command(*arguments, env=QUICKLY)
    assert failed.returncode == 2
    last = failed.stderr.splitlines()[-1]
    assert "omni_smola: Line 4 of split 'train'" in last and "img/3.png" in last
    assert "--config.data.on_error=skip" in last
    done = command(*arguments, "--config.data.on_error=skip", env=QUICKLY)  # goes on
    assert done.returncode == 0, done.stderr
    assert "left out line 4 of split 'train'" in done.stderr
    assert (
        "of 2 damaged examples. The first was line 4" in done.stderr
    )  # train's, and test's or not
