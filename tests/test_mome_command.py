"""MoME by the command line: two stages, a report, and the picture of its routers."""

import csv

import pytest
from PIL import Image

from .conftest import QUICKLY

RUN = (
    "--config=configs/mome.py:vision=semantic,transform=average,tasks=mini_count",
    "--config.backbone.init=random",
    "--config.vision.init=random",
    "--config.vision.side=2",
    "--config.language.experts=2",
    "--config.language.rank=2",
    "--config.language.stage_1_steps=3",
    "--config.steps=4",
    "--config.batch_size=4",
    "--config.optimizer.warmup=1",
    "--config.eval.examples=4",
    "--config.eval.batch_size=4",
)


@pytest.mark.slow
def test_two_stages_and_the_picture_of_their_routers(command, tmp_path, sentence_folder):
    workdir = tmp_path / "run"
    run = (
        *RUN,
        f"--config.instruction.encoder={sentence_folder}",
        "--config.instruction.length=9",
        f"--workdir={workdir}",
    )
    done = command(*run, env=QUICKLY)
    assert done.returncode == 0, done.stderr
    assert "first stage: one adapter, 3 steps" in done.stderr
    assert (workdir / "stage_1" / "checkpoints" / "3").is_dir()
    assert (workdir / "checkpoints" / "4").is_dir()
    assert "MoME" in done.stdout and "mini_count" in done.stdout
    assert (workdir / "predictions" / "test-mome-4" / "mini_count.jsonl").is_file()

    done = command(*run, "--mode=routing", env=QUICKLY)
    assert done.returncode == 0, done.stderr
    with open(workdir / "routing" / "step-4.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    routers = {row["router"] for row in rows}
    assert len(routers) == 3 and "vision" in routers  # and the encoder's and decoder's
    assert {row["family"] for row in rows} == {"counting"}
    for router in routers - {"vision"}:
        shares = [float(row["share"]) for row in rows if row["router"] == router]
        layers = len({row["layer"] for row in rows if row["router"] == router})
        assert sum(shares) == pytest.approx(layers, abs=1e-4)
    with Image.open(workdir / "routing" / "step-4.png") as picture:
        assert min(picture.size) > 300
    assert "counting" in done.stdout and str(workdir) in done.stdout

    image = tmp_path / "image.png"
    Image.new("RGB", (30, 20), "red").save(image)
    ask = ("--mode=predict", f"--image={image}", "--prompt=Answer in en: how many?")
    done = command(*run, *ask, env=QUICKLY)
    assert done.returncode == 0, done.stderr
    assert "checkpoint of step 4 answers" in done.stderr
