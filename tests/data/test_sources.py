"""Sources: random access, and the standard SeqIO way to them."""

import numpy as np
import pytest
import seqio
import tensorflow as tf

from omni_smola.data import sources
from omni_smola.data.jsonl import JsonlSource, check_folder
from omni_smola.errors import UserError


def test_a_record_survives_serialising():
    fields = {
        "id": "x",
        "image": b"\x00\x01png\x00",
        "question": "qué?",
        "choices": ["a", "b"],
        "references": ["b"],
        "answer_index": 1,
        "box": [0.0, 0.25, 0.5, 1.0],
    }
    record = sources.parse_record(tf.constant(sources.serialize_record(**fields)))
    assert record["id"].numpy() == b"x"
    assert list(record["image"].numpy()) == [fields["image"]]
    assert record["question"].numpy().decode() == "qué?"
    assert list(record["choices"].numpy()) == [b"a", b"b"]
    assert record["answer_index"].dtype == tf.int32
    np.testing.assert_array_equal(record["box"].numpy(), fields["box"])


def test_a_record_of_defaults_has_empty_vectors():
    record = sources.parse_record(tf.constant(sources.serialize_record(id="x")))
    assert [record[name].shape[0] for name in ("image", "choices", "references")] == [0, 0, 0]
    np.testing.assert_array_equal(record["box"].numpy(), [-1, -1, -1, -1])


@pytest.fixture
def source(write_folder):
    records = [{"image": None, "question": f"{i}?", "answer": str(i)} for i in range(100)]
    return JsonlSource(check_folder(write_folder("q", train=records)))


def questions(dataset):
    return [int(record["question"].decode()[:-1]) for record in dataset.as_numpy_iterator()]


def test_records_come_in_the_order_asked_for(source):
    indices = np.random.default_rng(0).integers(0, 100, 300)
    assert questions(source.dataset_at("train", indices)) == indices.tolist()


def test_every_record_has_its_own_seed(source):
    dataset = source.dataset_at("train", np.arange(100), seed=7)
    seeds = np.array([record["_seed"] for record in dataset.as_numpy_iterator()])
    np.testing.assert_array_equal(seeds, np.stack([np.full(100, 7), np.arange(100)], axis=1))


def test_the_standard_way_shuffles_by_seed_and_shards_without_overlap(source):
    plain = questions(source.get_dataset("train", shuffle=False))
    assert plain == list(range(100))
    shuffled = questions(source.get_dataset("train", seed=1))
    assert sorted(shuffled) == plain
    assert shuffled != plain
    assert shuffled == questions(source.get_dataset("train", seed=1))
    assert shuffled != questions(source.get_dataset("train", seed=2))
    shards = [
        questions(source.get_dataset("train", seed=1, shard_info=seqio.ShardInfo(i, 3)))
        for i in range(3)
    ]
    assert sorted(i for shard in shards for i in shard) == plain
    assert [len(shard) for shard in shards] == [34, 33, 33]


def test_the_mini_suite_is_built_on_first_use_and_read_like_tfds_does(tmp_path):
    source = sources.TfdsSource("choice", str(tmp_path))
    assert not list(tmp_path.iterdir())
    assert source.num_input_examples("validation") == 200
    assert set(source.splits) == {"train", "validation", "test"}
    expected = source._builder.as_data_source("validation")
    for i in (199, 0, 42):
        (serialized,) = source.read("validation", [i])
        record = sources.parse_record(tf.constant(serialized))
        more = {name: record.pop(name).numpy() for name in record.keys() - expected[i].keys()}
        assert (more["groups"], more["language"], len(more["ocr"])) == (b"", b"en", 0)
        assert record.keys() == expected[i].keys()
        for name, value in expected[i].items():
            np.testing.assert_array_equal(record[name].numpy(), value)
    with pytest.raises(UserError, match=r"mini_suite/choice has no split 'val'"):
        source.read("val", [0])
