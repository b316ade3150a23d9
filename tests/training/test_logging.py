"""The scalars of a run: what TensorBoard and the JSON lines have, and a disk without room."""

import json
import subprocess
import sys

from tensorboardX.proto.event_pb2 import Event

from omni_smola.training.logging import ScalarWriter

from ..conftest import ROOT


def events(folder) -> list[Event]:
    """Of all files, read by the format: length, its CRC, the event, its CRC."""
    found = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            if len(data) < 16 + size:  # half a record
                break
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def test_events_and_lines_say_the_same(tmp_path):
    with ScalarWriter(str(tmp_path)) as writer:
        writer.write(1, {"loss": 2.5, "gradient_norm": float("nan")})
        writer.write(3, {"eval/x/cider": 7.0})
        # What was written can be read before the run ends.
        lines = (tmp_path / "logs" / "scalars.jsonl").read_text().splitlines()
        first, *told = events(tmp_path / "logs")
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "train/loss": 2.5},
        {"step": 3, "eval/x/cider": 7.0},
    ]
    assert first.file_version == "brain.Event:2"
    values = [(e.step, v.tag, v.simple_value) for e in told for v in e.summary.value]
    assert values == [(1, "train/loss", 2.5), (3, "eval/x/cider", 7.0)]


def test_hosts_but_the_first_write_nothing(tmp_path):
    with ScalarWriter(str(tmp_path), primary=False) as writer:
        writer.write(1, {"loss": 1.0})
    assert not list(tmp_path.iterdir())


FULL = """
import resource, signal, sys
from omni_smola.training.logging import ScalarWriter

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
with ScalarWriter(sys.argv[1]) as writer:
    for step in range(100):
        if step == 20:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        if step == 60:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        writer.write(step, {f"value_{i}": float(step) for i in range(8)})
"""


def test_a_full_disk_stops_no_run_and_leaves_whole_records(tmp_path):
    """Files may not grow beyond 1 kB for a while: writing must neither raise nor wait for ever."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("THE LOG CANNOT BE WRITTEN") == 1
    lines = (tmp_path / "logs" / "scalars.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps[-1] == 99 and set(range(61, 100)) <= set(steps)
    steps = [event.step for event in events(tmp_path / "logs")]
    assert set(range(20)) | set(range(61, 100)) <= set(steps)
    assert min(steps.count(step) for step in range(61, 100)) == 8
