"""The experts of a run of the command line, in Python and in a file."""

import shutil

import numpy as np
import pytest
from flax import nnx

import omni_smola as smola
from omni_smola.errors import UserError
from omni_smola.experts.values import expert_parameters

from ..conftest import MICRO_STEPS, checkpointed, steps_of


@pytest.fixture(scope="module")
def bare():
    """The backbone of MICRO_RUN."""
    return lambda: smola.load_backbone("tiny", weights="random", resolution=24)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")  # random weights have the bits of a user's run
def test_a_run_becomes_a_file(trained, bare, tmp_path):
    workdir, _ = trained
    model, again = bare(), bare()
    assert smola.load_run_experts(workdir, model) == MICRO_STEPS
    wanted = checkpointed(workdir)
    for path, x in expert_parameters(model).items():
        np.testing.assert_array_equal(x, wanted[f"trainable/{path}"])
    card = smola.save_experts(tmp_path / "a.safetensors", model)
    assert card["experts"][0]["config"]["rank"] == 2
    smola.load_experts(tmp_path / "a.safetensors", again)
    for path, x in expert_parameters(model).items():
        np.testing.assert_array_equal(x, expert_parameters(again)[path])
    first, earlier = steps_of(workdir)[0], bare()
    assert smola.load_run_experts(workdir, earlier, step=first) == first
    assert any(
        (expert_parameters(earlier)[path] != x).any()
        for path, x in expert_parameters(model).items()
    )


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")  # random weights have the bits of a user's run
def test_what_does_not_belong_together_is_refused(trained, bare, tmp_path, capsys):
    workdir, _ = trained
    other = smola.load_backbone("tiny", weights="random", resolution=24, seed=1)
    with pytest.raises(UserError, match=r"were trained on another backbone \(fingerprint '"):
        smola.load_run_experts(workdir, other)
    assert not expert_parameters(other)
    other = smola.load_backbone("tiny", weights="random", resolution=24, frame="newline")
    with pytest.raises(UserError, match=r"another backbone \(frame 'eos' instead of 'newline'\)"):
        smola.load_run_experts(workdir, other)
    assert not expert_parameters(other)
    with pytest.raises(UserError, match=r"no checkpoint of step 3 in .*: choose one of 40, 35"):
        smola.load_run_experts(workdir, bare(), step=3)
    with pytest.raises(UserError, match=r"There is no checkpoint in .*: give the workdir of a run"):
        smola.load_run_experts(tmp_path, bare())
    model = bare()
    smola.attach_experts(model, smola.LoraConfig(2), "encoder/.*", rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match=r"The model has experts, .*: give .* a fresh model"):
        smola.load_run_experts(workdir, model)
    shutil.copytree(workdir / "checkpoints", tmp_path / "checkpoints")
    last = tmp_path / "checkpoints" / str(MICRO_STEPS)
    for file in (last / "trainable").rglob("*"):
        if file.is_file() and file.stat().st_size > 2000:
            file.write_bytes(file.read_bytes()[:-1000])
    model = bare()
    assert smola.load_run_experts(tmp_path, model) == steps_of(tmp_path)[-2]
    assert "is damaged" in capsys.readouterr().err
