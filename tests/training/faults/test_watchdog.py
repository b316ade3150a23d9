"""The watchdog in processes of its own: what hangs is ended, what was only stopped is not."""

import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[3]
START = "import time\nfrom omni_smola.training.faults.watchdog import Watchdog\n"


def start(code: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", START + code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(code: str) -> tuple[int, str]:
    with start(code) as process:
        _, err = process.communicate(timeout=120)
    return process.returncode, err


def test_work_that_stands_still_ends_with_all_stack_traces():
    status, err = ended(
        """
import threading
def reading_a_file_that_does_not_answer(): time.sleep(1000)
threading.Thread(target=reading_a_file_that_does_not_answer, daemon=True).start()
def waiting_for_data(): time.sleep(1000)
with Watchdog(minutes=0.02) as watchdog:
    watchdog.arm("the batch of step 7")
    waiting_for_data()
"""
    )
    assert status == 1
    assert "no progress in the batch of step 7 for 0.02 minutes" in err
    assert "watchdog_minutes" in err
    assert "waiting_for_data" in err and "reading_a_file_that_does_not_answer" in err


def test_work_that_goes_on_and_what_is_not_watched_are_let_be():
    status, err = ended(
        """
with Watchdog(minutes=0.01) as watchdog:
    time.sleep(1.5)  # preparing data
    for step in range(15):
        watchdog.arm(f"step {step}")
        time.sleep(0.1)
    with watchdog.watching("a batch", patience=20):
        time.sleep(1.5)
    time.sleep(1.5)
with Watchdog(minutes=0) as off:
    off.arm("step")
    time.sleep(1)
"""
    )
    assert (status, err) == (0, "")


def test_a_process_that_was_stopped_goes_on():
    code = """
with Watchdog(minutes=0.05) as watchdog:
    watchdog.arm("step 1")
    print("watched", flush=True)
    time.sleep(1)
    watchdog.arm("step 2")
    time.sleep(1)
"""
    with start(code) as process:
        assert process.stdout.readline() == "watched\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(5)  # longer than the limit of 3 s
        os.kill(process.pid, signal.SIGCONT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
