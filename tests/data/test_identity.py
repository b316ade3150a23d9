"""Digests of data: by contents, whatever the files are called."""

import shutil
import types

import pytest

from omni_smola.data import identity
from omni_smola.data.jsonl import JsonlFolder, JsonlSource

PETS = [
    {"image": f"{i}.png", "question": "which pet?", "answers": [answer]}
    for i, answer in enumerate(["cat", "dog", "cat"])
]


def both(folder) -> tuple[str, str]:
    source = JsonlSource(JsonlFolder(folder))
    training = identity.of_training(source, "train")
    assert training["examples"] == len(source.folder.records["train"])
    return identity.of_examples(source, "train", None), training["digest"]


@pytest.mark.parametrize("tar", [False, True])
def test_a_copy_is_the_same(write_folder, tmp_path, tar):
    first = write_folder("first", tar=tar, train=PETS)
    second = shutil.copytree(first, tmp_path / "elsewhere")
    assert both(first) == both(second)


@pytest.mark.parametrize(
    "change",
    [
        {"answers": ["hen"]},
        {"question": "which pet ?"},
        {"answers": ["dog", "a dog"]},
        {"id": "other"},
        {"image": "0.png"},
    ],
)
def test_every_field_counts(write_folder, change):
    first = write_folder("first", train=PETS)
    second = write_folder("second", train=[PETS[0], PETS[1] | change, PETS[2]])
    assert not set(both(first)) & set(both(second))


def test_an_image_with_another_content_is_another(write_folder):
    folder = write_folder("pets", train=PETS)
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes() + b"\0")
    before = both(folder)
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes() + b"\1")
    of_the_same_size = both(folder)
    assert before[0] != of_the_same_size[0]
    # Training counts names and sizes alone, so that a start stays quick.
    assert before[1] == of_the_same_size[1]
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes())
    assert before[1] != both(folder)[1]


def test_what_cannot_be_read_is_left_to_the_evaluation(write_folder):
    folder = write_folder("pets", train=PETS)
    source = JsonlSource(JsonlFolder(folder))
    whole = identity.of_examples(source, "train", None)
    (folder / "1.png").unlink()
    assert identity.of_examples(source, "train", None) != whole
    assert identity.of_examples(source, "train", None, skip=True) != whole


def test_only_what_is_evaluated_counts(write_folder):
    first = JsonlSource(JsonlFolder(write_folder("first", train=PETS)))
    second = JsonlSource(JsonlFolder(write_folder("second", train=PETS[:2])))
    assert identity.of_examples(first, "train", 2) == identity.of_examples(second, "train", 2)
    assert identity.of_examples(first, "train", 3) != identity.of_examples(second, "train", 3)


def test_a_prepared_dataset_counts_by_its_version_and_sizes():
    def digest(split="train", name="set/1.0.0", size=7, shards=(3, 2)) -> str:
        files = types.SimpleNamespace(num_bytes=size, shard_lengths=list(shards))
        info = types.SimpleNamespace(full_name=name, splits={"train": files, "test": files})
        prepared = types.SimpleNamespace(
            builder_info=lambda: info, num_input_examples=lambda split: 5
        )
        found = identity.of_training(prepared, split)
        assert found["examples"] == 5
        return found["digest"]

    changed = (
        {"split": "test"},
        {"split": "train+test"},
        {"name": "set/1.0.1"},
        {"size": 8},
        {"shards": (2, 3)},
    )
    assert digest() == digest()
    assert len({digest(), *(digest(**change) for change in changed)}) == 6


def test_a_tokenizer_is_its_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_text(name)
    assert identity.of_files(tmp_path / "a") == identity.of_files(tmp_path / "b")
    (tmp_path / "b" / "added_tokens.json").write_text("{}")
    assert identity.of_files(tmp_path / "a") != identity.of_files(tmp_path / "b")
    single = tmp_path / "c.model"
    single.write_text("{}")
    assert identity.of_files(single) == identity.of_files(tmp_path / "a")
