"""The command line as a user meets it: real processes, from the first command to every mistake."""

import concurrent.futures
import errno
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from omni_smola import main
from omni_smola.errors import UserError

from .conftest import MICRO_RUN, MICRO_STEPS, MICRO_TASKS, QUICKLY

# What a run may say on the standard error; everything else is noise.
PROGRESS = re.compile(
    r"\[\d\d:\d\d:\d\d\] \S.*"
    r"|step \d+/\d+  compiled and ran in [\d.]+ s"
    r"|step \d+/\d+  loss [\d.]+  token accuracy [\d.]+%  [\d.]+ steps/s  \d+ examples/s  \S+ left"
    r"|test-(frozen|smola) \d+: task \d of \d, \w+: \d+ examples, [\d.]+ examples/s, \S+ [\d.]+"
)


def row(task: str, examples: int = 4, score: str = r"[\d.]+") -> str:
    """A line of the table; score: of the frozen model, behind that of the best constant answer."""
    return rf"{task} +\w+ +\S+ +[\d.]+ +{score} +[\d.]+ +\S+ +{examples}"


def snapshot(folder: pathlib.Path) -> dict[str, tuple]:
    """Every path below, with the bytes and the time of each file."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        if path.is_file()
        else ()
        for path in sorted(folder.rglob("*"))
    }


def read_lines(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("pictures") / "red.png"
    Image.new("RGB", (60, 40), (200, 30, 30)).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A user's own data: questions about ten images."""
    folder = tmp_path_factory.mktemp("own") / "flags"
    (folder / "img").mkdir(parents=True)
    for split, count in (("train", 6), ("test", 4)):
        with open(folder / f"{split}.jsonl", "w") as lines:
            for i in range(count):
                image = f"img/{split}{i}.png"
                Image.new("RGB", (30, 20), (20 * i, 90, 0)).save(folder / image)
                record = {"image": image, "question": f"is it {i}?", "answers": ["yes", "no"]}
                lines.write(json.dumps(record) + "\n")
    return folder


@pytest.mark.slow
def test_training_ends_with_a_table_and_says_where_things_lie(trained):
    workdir, done = trained
    assert done.returncode == 0, done.stderr
    for task in MICRO_TASKS:
        assert re.search(row(task), done.stdout), done.stdout
    assert re.search(r"mean +exact_match +[\d.]+ +[\d.]+ +[\d.]+ +\S+ +8", done.stdout)
    for name in ("checkpoint", "predictions", "scores", "logs"):
        place = re.search(rf"^{name} +(\S+)$", done.stdout, re.MULTILINE).group(1)
        assert pathlib.Path(place).parent == workdir and pathlib.Path(place).is_dir()
    assert (workdir / "report.md").read_text().startswith("| task")

    for label in ("test-frozen-0", f"test-smola-{MICRO_STEPS}"):
        for task in MICRO_TASKS:
            records = read_lines(workdir / "predictions" / label / f"{task}.jsonl")
            assert len(records) == 4 and len({record["id"] for record in records}) == 4
            for record in records:
                assert {"prompt", "prediction", "references"} <= record.keys()
    scores = json.loads((workdir / "scores" / f"test-smola-{MICRO_STEPS}.json").read_text())
    assert set(scores["tasks"]) == set(MICRO_TASKS)

    config = json.loads((workdir / "config.json").read_text())
    assert config["steps"] == MICRO_STEPS and config["experts"]["visual"] == 2
    logged = read_lines(workdir / "logs" / "scalars.jsonl")
    losses = {line["step"]: line["train/loss"] for line in logged if "train/loss" in line}
    assert max(losses) == MICRO_STEPS and np.isfinite([*losses.values()]).all()
    assert any("eval/mini_count/exact_match" in line for line in logged)
    assert list((workdir / "logs").glob("events.out.tfevents.*"))
    saved = workdir / "checkpoints" / str(MICRO_STEPS)  # of the backbone, nothing
    items = {path.name for path in saved.iterdir() if path.is_dir()}
    assert items == {"trainable", "optimizer", "identity", "checksums"}


@pytest.mark.slow
def test_progress_is_all_that_training_says(trained):
    """No log of TensorFlow, SentencePiece, absl or Orbax between the lines that matter."""
    _, done = trained
    lines = done.stderr.splitlines()
    # The mini suite was made in this run.
    lines = [line for line in lines if not line.startswith("preparing mini_suite/")]
    assert [line for line in lines if line and not PROGRESS.fullmatch(line)] == []
    assert len([line for line in lines if line.startswith("step ")]) >= MICRO_STEPS / 5


@pytest.mark.slow
def test_the_same_command_again_resumes_and_reports(trained, command):
    workdir, first = trained
    before = snapshot(workdir / "checkpoints")
    done = command(*MICRO_RUN, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == first.stdout
    assert f"resuming {workdir} at step {MICRO_STEPS}" in done.stderr
    assert not re.search(r"^step ", done.stderr, re.MULTILINE)
    assert [line for line in done.stderr.splitlines() if not PROGRESS.fullmatch(line)] == []
    assert snapshot(workdir / "checkpoints") == before


@pytest.mark.slow
def test_eval_mode_evaluates_the_checkpoint(trained, command):
    workdir, _ = trained
    options = ("--mode=eval", "--config.eval.examples=2", "--config.eval.split=validation")
    done = command(*MICRO_RUN, *options, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    for task in MICRO_TASKS:
        assert re.search(row(task, examples=2), done.stdout), done.stdout
    of_split = {
        split: read_lines(
            workdir / "predictions" / f"{split}-smola-{MICRO_STEPS}" / "mini_count.jsonl"
        )
        for split in ("validation", "test")
    }
    # What was predicted for the test split stays.
    assert [len(of_split[split]) for split in ("validation", "test")] == [2, 4]


@pytest.mark.slow
def test_predict_mode_prints_the_answer_alone(trained, command, picture):
    workdir, _ = trained
    ask = ("--mode=predict", "--prompt=Answer in en: how many?", f"--image={picture}")
    done = command(*MICRO_RUN, *ask, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert f"checkpoint of step {MICRO_STEPS} answers" in done.stderr
    assert [line for line in done.stderr.splitlines() if not PROGRESS.fullmatch(line)] == []


@pytest.mark.slow
def test_a_folder_of_ones_own_is_trained_and_evaluated(command, folder, tmp_path):
    options = (*MICRO_RUN[1:], "--config.data.target_length=20")
    config = f"--config=configs/own_data.py:experts=2-2-2,rank=2,folders={folder}"
    done = command(config, *options, f"--workdir={tmp_path / 'run'}", env=QUICKLY)
    assert done.returncode == 0, done.stderr
    assert re.search(row("flags"), done.stdout), done.stdout
    label = tmp_path / "run" / "predictions" / f"test-smola-{MICRO_STEPS}"
    records = read_lines(label / "flags.jsonl")
    assert [record["references"] for record in records] == [["yes", "no"]] * 4


def bad_folder(folder: pathlib.Path, name: str) -> pathlib.Path:
    copy = folder.parent / name
    shutil.copytree(folder, copy)
    if name == "torn":
        for image in copy.glob("img/*"):
            image.write_bytes(image.read_bytes()[:60])
    else:
        lines = (copy / "train.jsonl").read_text().splitlines()
        record = json.loads(lines[2])
        del record["answers"]
        lines[2] = json.dumps(record)
        (copy / "train.jsonl").write_text("\n".join(lines))
    return copy


MAIN = "--config=configs/pali_smola.py"
# name -> arguments (PRECIOUS, FILE, ... are filled in), and what the sentence must name:
# the thing, the value, the way out.
MISTAKES = {
    "no config": ((), ["no config", "--config=configs/pali_smola.py"]),
    "no such config": (
        ("--config=configs/pali.py",),
        ["no config file 'configs/pali.py'", "--config=configs/pali_smola.py"],
    ),
    "not a config": (
        ("--config=omni_smola/errors.py",),
        ["omni_smola/errors.py", "KeyError", "get_config", "configs/pali_smola.py"],
    ),
    "unknown flag": ((MAIN, "--steps=4"), ["--steps", "--config.steps=..."]),
    "stray word": ((MAIN, "train"), ["'train' is not a flag", "--mode=train|eval|predict"]),
    "unknown mode": ((MAIN, "--mode=test"), ["--mode=test", "train|eval|predict"]),
    "unknown field": (
        (MAIN, "--config.optimizer.learning_rat=1"),
        ["config.optimizer.learning_rat ", "no field 'learning_rat'", "learning_rate?"],
    ),
    "unknown group": (
        (MAIN, "--config.optimiser.b1=1"),
        ["config.optimiser.b1", "no field 'optimiser'", "--config.optimizer?", "batch_size"],
    ),
    "field of a value": ((MAIN, "--config.steps.x=1"), ["config.steps.x", "config.steps is a"]),
    "wrong type": ((MAIN, "--config.steps=abc"), ["--config.steps=abc", "int", "--config.steps="]),
    "wrong bool": (
        (MAIN, "--config.backbone.remat=maybe"),
        ["--config.backbone.remat=maybe", "bool", "--config.backbone.remat=False"],
    ),
    "group as a value": (
        (MAIN, "--config.loss=3"),
        ["--config.loss=3", "--config.loss.label_smoothing=..."],
    ),
    "wrong argument": ((MAIN + ":rank=x",), ["rank=x", "int", "rank=4"]),
    "unknown argument": ((MAIN + ":bakbone=tiny",), ["'bakbone=tiny'", "mean backbone="]),
    "negative rank": (
        (MAIN, "--config.experts.rank=-4", "--workdir=PRECIOUS"),
        ["experts.rank is -4", "1 or more", "--config.experts.rank=4"],
    ),
    "no match": (
        (*MICRO_RUN, "--config.experts.where=encoder/.*/qqq", "--workdir=PRECIOUS"),
        ["'encoder/.*/qqq'", "matches no linear", "/attention/qkv/q", "--config.experts.where"],
    ),
    "unknown backbone": (
        (MAIN + ":backbone=pali4", "--workdir=PRECIOUS"),
        ["'pali4'", "tiny, pali3, palix", "--config.backbone.name"],
    ),
    "negative patience": (
        (MAIN, "--config.faults.watchdog_minutes=-1", "--workdir=PRECIOUS"),
        ["faults.watchdog_minutes is -1", "must be 0 or more"],
    ),
    "unknown method": (
        (MAIN, "--config.experts.method=moe", "--workdir=PRECIOUS"),
        ["experts.method is 'moe'", "smola, lora, adapter, none, full"],
    ),
    "no such weights": (
        (MAIN, "--config.backbone.init=none.safetensors", "--workdir=PRECIOUS"),
        ["none.safetensors", "--config.backbone.init="],
    ),
    "unknown task": (
        (MICRO_RUN[0].replace("mini_count", "mini_cuont"), *MICRO_RUN[1:], "--workdir=PRECIOUS"),
        ["'mini_cuont' is unknown", "'mini_count'?", "mini_caption"],
    ),
    "unwritable": (
        (*MICRO_RUN, "--workdir=FILE/run"),
        ["FILE/run", "cannot be written", "--workdir=PATH"],
    ),
    "other backbone": (
        (*MICRO_RUN, "--config.seed=1", "--workdir=PRECIOUS"),
        ["PRECIOUS/checkpoints/", "backbone = tiny ", "another --workdir"],
    ),
    "other experts": (
        (*MICRO_RUN, "--mode=eval", "--config.experts.where=encoder/.*/q", "--workdir=PRECIOUS"),
        ["PRECIOUS/checkpoints/", "experts.where = encoder/.*/q", "another --workdir"],
    ),
    "not an image": (
        (*MICRO_RUN, "--mode=predict", "--prompt=x", "--image=FILE", "--workdir=PRECIOUS"),
        ["image FILE cannot be read", "JPEG, PNG", "--image=PATH"],
    ),
    "no prompt": (
        (*MICRO_RUN, "--mode=predict", "--workdir=PRECIOUS"),
        ["needs a prompt", "--prompt="],
    ),
    "field missing": (
        ("--config=configs/own_data.py:folders=FIELDLESS", "--config.backbone.init=random"),
        ["FIELDLESS/train.jsonl, line 3", "answers"],
    ),
    "no such split": (
        (*MICRO_RUN, "--config.eval.split=tset"),
        ["mini_suite/", "has no split 'tset'", "'validation'"],
    ),
    "long warm-up": (
        (*MICRO_RUN, "--config.optimizer.warmup=50"),
        ["optimizer.warmup is 50 steps, but the run has 40", "at most 40"],
    ),
    "no such option": (
        (MAIN, "--config.data.sources.pets=FILE", "--config.data.sources.pets.metrik=iou"),
        ["no option 'metrik'", "mean metric?"],
    ),
    "comma in a path": (
        ("--config=configs/own_data.py:folders=a,b",),
        ["'b' is not one of name=value", r"written \,"],
    ),
    "image torn": (
        (
            "--config=configs/own_data.py:folders=TORN,experts=2-2-2,rank=2",
            *MICRO_RUN[1:],
            "--config.eval.baseline=False",
        ),
        ["img/train", "TORN", "does not decode", "data.on_error=skip"],
    ),
}


@pytest.fixture(scope="module")
def mistakes(command, trained, folder, tmp_path_factory):
    """Every mistake once, two processes at a time, around one copy of a finished run."""
    tmp_path = tmp_path_factory.mktemp("mistakes")
    (tmp_path / "file").write_text("not an image")
    places = {
        "PRECIOUS": tmp_path / "precious",
        "FILE": tmp_path / "file",
        "FIELDLESS": bad_folder(folder, "fieldless"),
        "TORN": bad_folder(folder, "torn"),
    }
    shutil.copytree(trained[0], places["PRECIOUS"])
    before = snapshot(tmp_path)

    def filled(text: str) -> str:
        for name, path in places.items():
            text = text.replace(name, str(path))
        return text

    def run(name: str):
        arguments = [filled(argument) for argument in MISTAKES[name][0]]
        if not any(argument.startswith("--workdir") for argument in arguments):
            arguments.append(f"--workdir={tmp_path / 'runs' / name.replace(' ', '_')}")
        return command(*arguments)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        outcomes = dict(zip(MISTAKES, pool.map(run, MISTAKES), strict=True))
    # What is refused before a run begins leaves no folder.
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["image_torn"]
    shutil.rmtree(tmp_path / "runs")
    assert snapshot(tmp_path) == before  # nothing overwritten, nothing added
    return {name: (done, list(map(filled, MISTAKES[name][1]))) for name, done in outcomes.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_in_one_sentence_and_status_2(mistakes, name):
    done, named = mistakes[name]
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    *said, sentence = done.stderr.splitlines()
    assert [line for line in said if not PROGRESS.fullmatch(line)] == []
    assert sentence.startswith("omni_smola: ")
    for part in named:
        assert part in sentence, sentence


@pytest.mark.parametrize(
    ("config", "workdir"),
    [
        ("configs/pali_smola.py", "runs/pali_smola"),
        ("configs/pali_smola.py:rank=8,tasks=a+b", "runs/pali_smola-rank=8_tasks=a+b"),
        ("/elsewhere/my.py:folders=~/a/b", "runs/my-folders=_a_b"),
    ],
)
def test_the_default_workdir_is_named_after_the_config(config, workdir):
    assert main.default_workdir(config) == workdir


def test_a_disk_that_takes_no_more_is_a_sentence(monkeypatch):
    def full(argv):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/scores/tuned.json")

    monkeypatch.setattr(main, "main", full)
    with pytest.raises(UserError, match=r"space left on device.*tuned\.json.*make room there"):
        main._run([])
