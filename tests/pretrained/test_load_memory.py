"""Loading needs host memory for a tensor, not for a parameter or a model."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

LAYERS, WIDTH, MLP = 16, 512, 8192


@pytest.mark.slow
def test_host_memory_beyond_the_parameters(tmp_path):
    """The command that measures a 3B-shaped one, at a tenth of the size, in processes of its own.

    100 MB are less than one stacked parameter (134 MB) and much less than all (430 MB); most of
    what is measured is the compiler's, and a block of 64 MB.
    """
    command = [
        sys.executable,
        str(ROOT / "third_party" / "loading_memory.py"),
        f"--folder={tmp_path / 'made'}",
        f"--layers={LAYERS}",
        f"--width={WIDTH}",
        f"--mlp={MLP}",
        "--vocabulary=20000",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    linear = LAYERS * (3 * MLP * WIDTH + 4 * WIDTH * WIDTH + WIDTH)
    assert measured["parameters"] == 2 * (linear + (20000 + 5000) * WIDTH)
    assert measured["largest"] == 2 * 20000 * WIDTH
    assert measured["allowed"] == 1.5 * measured["largest"] + 1e9
    assert measured["beyond"] < 100e6
    assert not (tmp_path / "made").exists()
