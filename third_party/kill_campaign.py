"""Runs that are killed at random moments and resumed, against one that never was.

    python third_party/kill_campaign.py --kills=100 --folder=/tmp/kills

trains a small run once to its end, then again and again in other workdirs, where it is killed by
SIGKILL (while its data are made, before the first step, in a step, in an evaluation, while a
checkpoint is written, or at any moment after the start, in turn) and started again until it is
done. Printed and written to {folder}/kills.json: the kills by moment, and for every run whether
its last checkpoint has the bits of the one never killed, its predictions too, and whether every row
of every batch that it ever took had the same hash. --processes=2 runs all with two processes. With
--processes=1,2 every start draws its number; arithmetic on another number has other last bits, so
that such a run is compared by the hashes alone.

Exits with status 1 if anything differs. --preload starts processes as forks of one that has done
the imports, which takes half of the time; runs of one process only.
"""

import argparse
import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
STEPS = 60
RUN = (
    "--config=configs/pali_smola.py:experts=2-2-2,rank=2,tasks=mini_count+mini_choice",
    "--config.backbone.init=random",
    "--config.backbone.resolution=24",
    f"--config.steps={STEPS}",
    "--config.batch_size=4",
    "--config.log_every=1",
    "--config.optimizer.warmup=2",
    "--config.checkpoint.every=3",
    "--config.eval.every=7",
    "--config.eval.examples=4",
    "--config.eval.batch_size=4",
    "--config.eval.baseline=False",
    "--config.faults.log_batches=True",
)
MOMENTS = ("data", "before the first step", "step", "evaluation", "saving", "any")


@dataclasses.dataclass
class Killed:
    """One kill: what was aimed at, the processes, and the newest checkpoint after it."""

    moment: str
    processes: int
    step: int
    half_written: bool


class Group:
    """The processes of one start; their standard error output is read as it comes."""

    def __init__(self, workdir: pathlib.Path, count: int, env: dict[str, str], preload: bool):
        self.workdir, self.data = workdir, data_of(workdir)
        arguments = (*RUN, f"--workdir={workdir}", f"--config.data.data_dir={self.data}")
        self._pids: list[int] = []
        port = free_port()
        for index in range(count):
            if count == 1 and preload:
                pid, self._stderr = forked(arguments)
            else:
                many = {
                    "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                    "JAX_NUM_PROCESSES": str(count),
                    "JAX_PROCESS_ID": str(index),
                }
                process = subprocess.Popen(
                    [sys.executable, "-m", "omni_smola.main", *arguments],
                    cwd=ROOT,
                    env=env | (many if count > 1 else {}),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL if index else subprocess.PIPE,
                )
                pid = process.pid
                if not index:
                    self._stderr = process.stderr.fileno()
                    self._kept = process.stderr  # its finaliser would close the descriptor
            self._pids.append(pid)
        self.text = ""
        self._open = True

    def read(self, seconds: float) -> bool:
        """Reads for at most so long; False when the output has ended."""
        if self._open and select.select([self._stderr], [], [], seconds)[0]:
            part = os.read(self._stderr, 65536)
            self._open = bool(part)
            self.text += part.decode(errors="replace")
        return self._open

    def kill(self) -> None:
        """SIGKILL to all of them."""
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> list[int]:
        """Their exit statuses, when all have ended."""
        while self._open:
            self.read(60)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self._pids]
        self._pids = []
        return statuses

    def until(self, moment: str, rng: random.Random, seconds: float) -> bool:
        """Returns at the moment to kill: True, or False where the run has ended before.

        Args:
          moment: one of MOMENTS. seconds: that the never killed run took.
        """
        if moment == "data":
            while not any(self.data.rglob("*")):
                if not self.read(0.02):
                    return False
            return self._sleep(rng.uniform(0, 0.2 * seconds))
        wanted = {"before the first step": "frozen parameters", "any": ""}.get(moment, "\nstep ")
        while wanted not in self.text:
            if not self.read(1):
                return False
        if moment == "any":
            return self._sleep(rng.uniform(0, seconds))
        if moment == "before the first step":
            return self._sleep(rng.uniform(0, 0.2 * seconds))
        if moment == "evaluation":
            seen = len(self.text)
            while "task 1 of 2" not in self.text[seen:]:
                if not self.read(1):
                    return False
            return True
        for _ in range(rng.randint(1, 8)):
            seen = len(self.text)
            while "step " not in self.text[seen:]:
                if not self.read(1):
                    return False
        if moment == "step":
            return self._sleep(rng.uniform(0, 0.05))
        while not half_written(self.workdir):
            if not self.read(0.0005):
                return False
        return self._sleep(rng.uniform(0, 0.02))

    def _sleep(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self._open and time.monotonic() < end:
            self.read(min(0.05, max(0.0, end - time.monotonic())))
        return self._open


def forked(arguments: tuple[str, ...]) -> tuple[int, int]:
    """A fork of this process that runs the command line: its id and its standard error output."""
    out, into = os.pipe()
    pid = os.fork()
    if pid:
        os.close(into)
        return pid, out
    status = 1
    try:
        os.dup2(into, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        from omni_smola import main

        os.chdir(ROOT)
        sys.argv = ["omni_smola", *arguments]
        main.cli()
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def data_of(workdir: pathlib.Path) -> pathlib.Path:
    """The folder of a run's data, its own, so that they can be made anew."""
    return workdir.with_name(f"{workdir.name}-data")


def newest(workdir: pathlib.Path) -> int:
    """The newest complete checkpoint's step, -1 without any."""
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=-1)


def half_written(workdir: pathlib.Path) -> bool:
    """Whether a checkpoint is being written, or was left so."""
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def fingerprint(workdir: pathlib.Path, env: dict[str, str]) -> dict[str, str]:
    """SHA-256 of every array of the last checkpoint and of every file of predictions."""
    told = subprocess.run(
        [sys.executable, __file__, f"--folder={workdir}", "--fingerprint"],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(told.stdout)


def fingerprint_here(workdir: pathlib.Path) -> dict[str, str]:
    """The same, in a process that will not fork: reading a checkpoint starts JAX's threads."""
    from omni_smola.training import restoring

    sums = {"step": str(newest(workdir))}
    for path, array in restoring.arrays(workdir / "checkpoints" / sums["step"]).items():
        sums[path] = hashlib.sha256(array.tobytes()).hexdigest()
    for file in sorted((workdir / "predictions").glob(f"*-{STEPS}/*.jsonl")):
        sums[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return sums


def rows(workdir: pathlib.Path) -> dict[tuple[int, int], set[str]]:
    """(step, row of the global batch) -> the hashes of it that were ever taken."""
    found: dict[tuple[int, int], set[str]] = {}
    for file in (workdir / "logs").glob("batches-host-*.jsonl"):
        for line in file.read_text().splitlines():
            try:
                told = json.loads(line)
            except json.JSONDecodeError:  # cut by a kill, or glued to one that was
                continue
            for place, value in enumerate(told["rows"], told["first"]):
                found.setdefault((told["step"], place), set()).add(value)
    return found


def one_run(
    workdir: pathlib.Path,
    options: argparse.Namespace,
    rng: random.Random,
    left: int,
    seconds: float,
) -> list[Killed]:
    """Kills and resumes a run until it is done, `left` times at most."""
    kills: list[Killed] = []
    while True:
        count = rng.choice(options.processes)
        moment = MOMENTS[len(kills) % len(MOMENTS)]
        if moment == "data" and len(kills) < left:
            shutil.rmtree(data_of(workdir), ignore_errors=True)
        group = Group(workdir, count, options.env, options.preload)
        if len(kills) < left and group.until(moment, rng, seconds):
            group.kill()
            kills.append(Killed(moment, count, newest(workdir), half_written(workdir)))
            print(f"{workdir.name}: {kills[-1]}", flush=True)
            continue
        statuses = group.wait()
        if any(statuses):
            raise SystemExit(f"{workdir} ended with {statuses}:\n{group.text}")
        return kills


def table(told: list[dict]) -> str:
    """What was killed when, and how the runs ended."""
    kills = [Killed(**kill) for run in told for kill in run["kills"]]
    lines = [f"{'killed':24}{'kills':>6}{'a half-written checkpoint left':>32}"]
    for moment in MOMENTS:
        own = [kill for kill in kills if kill.moment == moment]
        left = sum(kill.half_written for kill in own)
        lines.append(f"{moment:24}{len(own):6}{left:32}")
    lines.append(f"{'all':24}{len(kills):6}{sum(kill.half_written for kill in kills):32}")
    counts = collections.Counter(kill.processes for kill in kills)
    lines.append("by processes: " + ", ".join(f"{n}: {k}" for n, k in sorted(counts.items())))
    same = [run["same_bits"] for run in told if run["same_bits"] is not None]
    lines.append(f"runs: {len(told)}; compared to the bit: {len(same)}, of which same: {sum(same)}")
    lines.append(
        f"rows compared by hash: {sum(run['rows'] for run in told):,}, "
        f"of which different: {sum(run['rows_different'] for run in told)}"
    )
    return "\n".join(lines)


def main() -> None:
    """Runs the campaign."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True, type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--per-run", type=int, default=10, help="kills of one run at most")
    parser.add_argument("--minutes", type=float, default=1e9, help="no new run after so long")
    parser.add_argument("--processes", default="1", help="numbers to draw from, such as 1,2")
    parser.add_argument("--preload", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fingerprint", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fingerprint:
        print(json.dumps(fingerprint_here(options.folder)))
        return
    options.processes = [int(n) for n in options.processes.split(",")]
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(options.folder / "compiled"),
        "JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    options.env = {**os.environ, "PYTHONPATH": str(ROOT)}
    sys.path.insert(0, str(ROOT))
    if options.preload:
        from omni_smola import modes  # noqa: F401
        from omni_smola.data import pipeline, sources  # noqa: F401
    start, rng = time.monotonic(), random.Random(options.seed)

    calm = options.folder / "never_killed"
    reference = argparse.Namespace(**vars(options) | {"processes": options.processes[:1]})
    for _ in range(2):  # the first compiles; the second's time is that of a resumed run
        shutil.rmtree(calm, ignore_errors=True)
        began = time.monotonic()
        one_run(calm, reference, rng, 0, 0.0)
        seconds = time.monotonic() - began
    wanted, wanted_rows = fingerprint(calm, options.env), rows(calm)
    print(f"never killed: {seconds:.1f} s, {len(wanted)} arrays and files", flush=True)

    told: list[dict] = []
    killed = 0
    while killed < options.kills and time.monotonic() - start < 60 * options.minutes:
        workdir = options.folder / f"run-{len(told)}"
        shutil.rmtree(workdir, ignore_errors=True)
        kills = one_run(
            workdir, options, rng, min(options.per_run, options.kills - killed), seconds
        )
        killed += len(kills)
        found = rows(workdir)
        differ = sum(found[key] != wanted_rows.get(key) for key in found)
        alike = len(options.processes) == 1
        told.append(
            {
                "kills": [dataclasses.asdict(kill) for kill in kills],
                "same_bits": fingerprint(workdir, options.env) == wanted if alike else None,
                "rows": len(found),
                "rows_different": differ,
                "all_rows_taken": found.keys() == wanted_rows.keys(),
            }
        )
        (options.folder / "kills.json").write_text(json.dumps(told, indent=1))
        print(table(told) + f"\nminutes: {(time.monotonic() - start) / 60:.1f}\n", flush=True)
    if any(
        run["same_bits"] is False or run["rows_different"] or not run["all_rows_taken"]
        for run in told
    ):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
