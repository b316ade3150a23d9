"""`--mode=compile` as a user types it, with the TPU's real compiler."""

import json
import re

import pytest

from omni_smola import config as configs
from omni_smola.ahead import child, report
from omni_smola.errors import UserError

pytest.importorskip("libtpu")

CONFIG = (
    "--config=configs/pali_smola.py:experts=2-2-2,rank=2",
    "--config.backbone.init=/nowhere.safetensors",  # no weights are read
    "--config.mesh.data=-1",
    "--config.mesh.fsdp=4",
    "--config.mesh.tensor=2",
    "--config.batch_size=16",
    "--config.eval.batch_size=16",
    "--mode=compile",
)


@pytest.fixture(scope="module")
def compiled(command, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("compiled")
    return workdir, command(*CONFIG, "--topology=v5e:4x4", f"--workdir={workdir}")


@pytest.mark.slow
def test_both_programs_are_compiled_for_a_tpu_that_is_not_there(compiled):
    workdir, process = compiled
    assert process.returncode == 0, process.stderr
    found = json.loads((workdir / "compile" / "v5e-4x4.json").read_text())
    assert (found["chips"], found["errors"]) == (16, {})
    for name in ("train", "decode"):
        program = found["programs"][name]
        assert program["mesh"] == {"data": 2, "fsdp": 4, "tensor": 2}
        assert program["fits"]
        assert 0 < program["argument_bytes"] <= program["peak_bytes"] < program["hbm_bytes"]
        assert program["collectives"]["all-gather"]["bytes"] > 0
        assert program["estimated_cycles"] > 0
        assert 2**28 < program["host_peak_bytes"] < 2**33
    train, decode = found["programs"]["train"], found["programs"]["decode"]
    # The state is donated: parameters and optimiser take no second place.
    assert train["in_place_bytes"] > 0.9 * train["output_bytes"] > 0
    assert decode["flops_of_loops_at_most"] == [found["config"]["data"]["target_length"]]
    # Each of 16 examples has 64 patches and 24 tokens of a prompt; a token costs two operations
    # for every weight of the encoder, twice that where gradients of activations are needed.
    encoder = 4 * (4 * 128 * 128 + 3 * 128 * 256)
    assert train["flops"] > 16 * (64 + 24) * 2 * 2 * encoder / found["chips"]
    assert (train["loops_of_unknown_length"], decode["loops_of_unknown_length"]) == (0, 1)


@pytest.mark.slow
def test_the_report_names_what_there_is_and_where_it_is_written(compiled):
    workdir, process = compiled
    told = process.stdout
    assert told.startswith("v5e:4x4: 16 chips of 16 GiB and 197 TFLOP/s")
    titles = ("arguments", "temporaries", "peak", "fits", "all-gather", "estimated cycles")
    for title in (*titles, "memory of the host for it"):
        assert re.search(rf"^{title} .*\d|^{title} +yes +yes", told, re.MULTILINE), title
    assert told.strip().endswith(str(workdir / "compile" / "v5e-4x4.json"))


def test_what_the_compiler_does_not_know_is_a_sentence(tmp_path):
    config = configs.defaults()
    # 3 x 3 chips do not make whole hosts: only the compiler knows.
    with pytest.raises(UserError, match=r"no topology v5e:3x3.*Choose one such as v5e:4x4"):
        child.analyse("train", config, "v5e:3x3", tmp_path / "log")
    assert not list(tmp_path.glob("*.json"))


def test_a_mesh_that_does_not_fit_is_a_sentence(tmp_path):
    config = configs.defaults()
    config.mesh.tensor = 3
    found = report.measure(config, "v5e:2x2", str(tmp_path), names=("train",))
    assert re.search(r"does not fill the 4 devices", found["errors"]["train"])
    assert report.complaints(found) == [found["errors"]["train"]]


def test_a_compiler_that_aborts_is_a_sentence(tmp_path, monkeypatch):
    config = configs.defaults()
    # As the compiler does for a slice of more than 16 chips a side.
    ending = tmp_path / "sitecustomize.py"
    ending.write_text(
        "import os, sys\n"
        "if any('request.json' in word for word in sys.orig_argv):\n"
        "    print('F0000 Check failed: chip_bounds.x <= 16', file=sys.stderr, flush=True)\n"
        "    os.abort()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError) as caught:
        child.analyse("train", config, "v5e:4x4", tmp_path / "log")
    assert re.search(
        r"The compiler ended on the train program for v5e:4x4, by the signal SIGABRT: F0000 Check "
        r"failed: chip_bounds.x <= 16\. All it said is in .*log\.",
        str(caught.value),
    )


def test_an_impossible_topology_ends_with_status_2(command, tmp_path):
    process = command(*CONFIG, "--topology=v5e:32x32", f"--workdir={tmp_path}")
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr == (
        "omni_smola: The topology v5e:32x32 cannot be: a slice of v5e has 2 axes and at most 16x16 "
        "chips.\n"
    )


def test_what_does_not_fit_is_told_with_a_way_out():
    program = {"fits": False, "why": "Used 31G of 15.75G hbm", "peak_bytes": 1}
    found = {"topology": "v5e:4x4", "programs": {"train": program}, "errors": {}}
    (sentence,) = report.complaints(found)
    assert re.match(
        r"The train program does not fit a chip of v5e:4x4 \(Used 31G of 15.75G hbm\): use more "
        r"chips, .*--config.mesh.frozen=fsdp\+tensor.*lower --config.batch_size\.",
        sentence,
    )
