"""Signals: noted while there is something to save, else they end the run at once."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from omni_smola.errors import Preempted
from omni_smola.training.faults.preemption import Preemption

ROOT = pathlib.Path(__file__).parents[3]


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # Python runs the handler between two lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_where_nothing_is_to_be_saved_the_run_ends_at_once(number):
    with pytest.raises(Preempted, match=number.name):
        with Preemption(1000):
            send(number)
            raise AssertionError("not reached")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_within_the_loop_it_waits_for_the_step(number):
    before = signal.getsignal(number)
    with Preemption(1000) as preemption:
        # After the last step has asked, too, it is not forgotten.
        with pytest.raises(Preempted, match=number.name), preemption.deferred():
            assert preemption.reached() == ""
            send(number)
            assert preemption.reached() == number.name
            with pytest.raises(Preempted), preemption.immediate():
                raise AssertionError("an evaluation is not begun")
    assert signal.getsignal(number) is before


def test_an_evaluation_is_interrupted():
    with Preemption(1000) as preemption, pytest.raises(Preempted), preemption.deferred():
        with pytest.raises(Preempted, match="SIGTERM"), preemption.immediate():
            send(signal.SIGTERM)
            raise AssertionError("not reached")
        assert preemption.reached() == "SIGTERM"


def test_a_second_interrupt_is_that_of_python():
    with Preemption(1000) as preemption, pytest.raises(Preempted), preemption.deferred():
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
            time.sleep(1)


def test_after_the_grace_period_the_run_is_ended():
    code = """
import os, signal, time
from omni_smola.training.faults.preemption import Preemption
with Preemption(0.2) as preemption, preemption.deferred():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1
    assert "has not within 0.2 s (config.checkpoint.grace_seconds)" in done.stderr
