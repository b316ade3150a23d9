"""Preparation by Apache Beam on a local runner: seqio_cache_tasks, and TFDS's Beam writers."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import seqio
from PIL import Image

import omni_smola
from omni_smola.data import sources, tasks
from omni_smola.data.builders.official import builder as official
from omni_smola.data.builders.official import images
from omni_smola.data.builders.official.image_sets import COCO
from omni_smola.data.official_source import OfficialSource

ROOT = pathlib.Path(omni_smola.__file__).parent.parent
LENGTHS = {"prompt": 32, "target": 32, "image": 1}
PHOTOS = 30


def run(folder: pathlib.Path, *command: str) -> None:
    """Runs a Python module as a command that finds the modules of `folder`, and ours."""
    pytest.importorskip("apache_beam")
    result = subprocess.run(
        [sys.executable, "-m", *command],
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]


def questions(n: int) -> list[dict]:
    return [
        {"image": f"{i}.png", "question": f"what is {i}?", "answers": [f"number {i}"]}
        for i in range(n)
    ]


@pytest.fixture
def pets(tmp_path, write_folder):
    """A registered task of a folder, and the folder."""
    nothing = {"image": None, "question": "what is nothing?", "answers": ["a dog, a cat"]}
    folder = write_folder("pets", train=[*questions(7), nothing], validation=questions(2))
    tasks.register({"pets": str(folder)}, data_dir=str(tmp_path / "tfds"))
    return tasks.get("pets"), folder


def read(task: tasks.Task, split: str, cached: bool) -> dict[bytes, dict]:
    dataset = task.get_dataset(LENGTHS, split, use_cached=cached, shuffle=cached, seed=3)
    return {example["id"]: example for example in dataset.as_numpy_iterator()}


@pytest.mark.slow
def test_a_cached_task_gives_the_same_examples(tmp_path, pets, monkeypatch):
    task, folder = pets
    (tmp_path / "pet_tasks.py").write_text(
        "from omni_smola.data import tasks\n\n"
        f"tasks.register({{'pets': {str(folder)!r}}}, data_dir={str(tmp_path / 'tfds')!r})\n"
    )
    cache = tmp_path / "cache"
    run(
        tmp_path,
        "seqio.scripts.cache_tasks_main",
        "--module_import=pet_tasks",
        "--tasks=pets",
        f"--output_cache_dir={cache}",
        "--min_shards=2",
    )
    monkeypatch.setattr(seqio.utils, "_GLOBAL_CACHE_DIRECTORIES", [str(cache)])
    for split, count in (("train", 8), ("validation", 2)):
        assert task.get_cached_stats(split)["examples"] == count
        direct, cached = read(task, split, False), read(task, split, True)
        assert direct.keys() == cached.keys() and len(direct) == count
        for name, example in direct.items():
            for field, value in example.items():
                np.testing.assert_array_equal(cached[name][field], value, err_msg=field)


def test_a_cache_holds_records_and_no_prompts(pets):
    """Prompts, vocabulary and lengths stay free: only the preprocessor after it knows them."""
    task, _ = pets
    assert task.supports_caching
    records = task.source.get_dataset("train", shuffle=False)
    stored = next(task.preprocess_precache(records).as_numpy_iterator())
    assert stored["question"] == b"what is 0?" and "prompt" not in stored


def test_workers_share_a_large_source(pets, monkeypatch):
    source = pets[0].source
    assert len(source.list_shards("train")) == 1
    monkeypatch.setattr(sources, "_SHARD", 3)
    assert len(source.list_shards("train")) == 3
    parts = []
    for i in range(3):
        part = source.get_dataset("train", shuffle=False, shard_info=seqio.ShardInfo(i, 3))
        parts.append([record["id"] for record in part.as_numpy_iterator()])
    assert all(parts)
    assert sorted(parts[0] + parts[1] + parts[2]) == sorted(read(pets[0], "train", False))


@pytest.fixture
def downloads(tmp_path) -> pathlib.Path:
    """VQAv2's validation files with a question for each of a few photos."""
    folder = tmp_path / "downloads"
    (folder / "coco/val2014").mkdir(parents=True)
    (folder / "vqav2").mkdir()
    answers = [{"answer": "dog", "answer_confidence": "yes", "answer_id": i} for i in range(10)]
    asked, annotations = [], []
    for i in range(1, PHOTOS + 1):
        photo = folder / f"coco/val2014/COCO_val2014_{i:012d}.jpg"
        Image.new("RGB", (9, 7), (i * 8, 9, 9)).save(photo)
        ids = {"image_id": i, "question_id": 1000 + i}
        asked.append(ids | {"question": f"What is {i}?"})
        annotations.append(ids | {"answer_type": "other", "answers": answers})
    for name, content in (
        ("v2_OpenEnded_mscoco_val2014_questions", {"questions": asked}),
        ("v2_mscoco_val2014_annotations", {"annotations": annotations}),
    ):
        (folder / f"vqav2/{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.slow
def test_tfds_build_with_beam_stores_what_one_process_does(tmp_path, downloads):
    pytest.importorskip("mlcroissant")
    run(
        tmp_path,
        "tensorflow_datasets.scripts.cli.main",
        "build",
        sys.modules[official.find("vqav2").__module__].__file__,
        f"--manual_dir={downloads}",
        f"--data_dir={tmp_path / 'beam'}",
        "--file_format=array_record",
        "--beam_pipeline_options=runner=DirectRunner",
    )
    beam = OfficialSource("vqav2", str(tmp_path / "beam"))  # finds all prepared
    alone = OfficialSource("vqav2", str(tmp_path / "alone"), str(downloads))
    assert beam.num_input_examples("validation") == PHOTOS
    everything = range(PHOTOS)
    assert beam.read("validation", everything) == alone.read("validation", everything)
    assert beam._store.positions == alone._store.positions


def test_images_are_read_by_beam_where_it_is_asked_for(tmp_path, downloads):
    beam = pytest.importorskip("apache_beam")
    found = COCO.images(downloads)
    asked = images.Images(COCO, True, data_dir=str(tmp_path))._generate_examples(found)
    assert isinstance(asked, beam.PTransform)
    plain = images.Images(COCO, data_dir=str(tmp_path))._generate_examples(found)
    assert len(dict(plain)) == PHOTOS
