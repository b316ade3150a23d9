"""Damaged or odd weight files and tokenizers end in weights, a vocabulary, or one sentence."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
CASES = 420


def test_no_file_ends_in_a_traceback_or_takes_all_memory():
    """In a process of its own, which a file may not end either; see `odd_files`."""
    command = [sys.executable, "-m", "tests.pretrained.odd_files", "0", str(CASES)]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert not said["faults"], "\n".join(said["faults"])
    assert sum(said["counts"].values()) == CASES
    assert said["counts"]["sentence"] > CASES / 3 and said["counts"]["read"] > CASES / 20
