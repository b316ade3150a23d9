"""The stream of batches: reproducible, resumable, the same on any number of hosts."""

import itertools

import numpy as np
import pytest

from omni_smola.data import instruction, tasks
from omni_smola.data.pipeline import eval_batches, train_batches
from omni_smola.errors import UserError

from .conftest import caption_records, question_records

SIZES = {"batch_size": 8, "prompt_length": 16, "target_length": 12, "resolution": 24}
RATES = {"cap": 2.0, "ask": 1.0, "find": 1.0, "find_describe": 0.5}


def batches(count, rates=RATES, **options):
    stream = train_batches(rates, **({"seed": 0} | SIZES | options))
    return list(itertools.islice(stream, count))


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def decode(ids):
    return tasks.get("cap").output_features["target"].vocabulary.decode(ids.tolist())


def test_a_batch_has_the_documented_layout(tasks_of_three):
    (batch,) = batches(1)
    layout = {key: (value.dtype.name, value.shape) for key, value in batch.items()}
    assert layout == {
        "image": ("uint8", (8, 24, 24, 3)),
        "image_mask": ("bool", (8,)),
        "prompt": ("int32", (8, 16)),
        "prompt_mask": ("bool", (8, 16)),
        "target": ("int32", (8, 12)),
        "target_mask": ("bool", (8, 12)),
        "task": ("int32", (8,)),
    }
    assert batch["image_mask"].all()
    np.testing.assert_array_equal(batch["target_mask"], batch["target"] != 0)
    for row, mask in zip(batch["target"], batch["target_mask"], strict=True):
        assert row[mask.sum() - 1] == 1  # EOS


def test_each_task_has_its_prompt_and_its_number(tasks_of_three):
    starts = {0: "caption in en", 1: "Answer in en: ", 2: "box of thing", 3: "describe [0."}
    seen = set()
    for batch in batches(8):
        for task, prompt in zip(batch["task"], batch["prompt"], strict=True):
            assert decode(prompt).startswith(starts[int(task)])
            seen.add(int(task))
    assert seen == set(starts)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tasks_of_three):
    one, other = batches(4), batches(4)
    assert all(map(same, one, other))
    assert not any(map(same, one, batches(4, seed=1)))


def test_opening_at_a_step_equals_skipping_to_it(tasks_of_three):
    whole = batches(12)
    for start in (1, 7):
        assert all(map(same, whole[start:], batches(12 - start, start_step=start)))


def test_a_far_step_opens_like_a_near_one(tasks_of_three):
    far = 10**9
    one, two = batches(2, start_step=far)
    assert same(two, batches(1, start_step=far + 1)[0])
    assert not same(one, two)


def test_hosts_share_the_rows_of_one_global_batch(tasks_of_three):
    whole = batches(5, start_step=3)
    for hosts in (2, 4):
        parts = [batches(5, start_step=3, host_index=i, host_count=hosts) for i in range(hosts)]
        for step, batch in enumerate(whole):
            joined = {key: np.concatenate([part[step][key] for part in parts]) for key in batch}
            assert same(batch, joined)


def test_the_rates_are_met_in_every_1024_examples(tasks_of_three):
    stream = train_batches(RATES, seed=0, **(SIZES | {"batch_size": 64, "resolution": 8}))
    for _ in range(2):
        drawn = np.concatenate([next(stream)["task"] for _ in range(1024 // 64)])
        np.testing.assert_array_equal(np.bincount(drawn), [455, 228, 227, 114])


def test_an_epoch_shows_every_example_once_and_other_captions_later(tasks_of_three):
    targets = [decode(t) for b in batches(21, {"cap": 1.0}, batch_size=1) for t in b["target"]]
    epochs = [targets[:7], targets[7:14], targets[14:]]
    for epoch in epochs:
        assert sorted(t.split()[1] for t in epoch) == [str(i) for i in range(7)]
    assert len(set(targets)) > 7


def test_evaluation_goes_through_a_split_once_with_all_references(tasks_of_three):
    pairs = list(eval_batches("cap", "validation", **(SIZES | {"batch_size": 2}), task_index=5))
    assert [len(examples) for _, examples in pairs] == [2, 1]
    (first, _), (last, _) = pairs
    assert {k: v.shape for k, v in first.items()} == {k: v.shape for k, v in last.items()}
    np.testing.assert_array_equal(first["example_mask"], [True, True])
    np.testing.assert_array_equal(last["example_mask"], [True, False])
    np.testing.assert_array_equal(last["task"], [5, 5])
    assert not last["image"][1].any() and not last["target_mask"][1].any()
    examples = [example for _, group in pairs for example in group]
    assert examples[2] == {
        "id": "validation-3",
        "prompt": "caption in en",
        "references": [f"caption 2 number {j}" for j in range(5)],
        "groups": "",
        "question": "",
    }


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_evaluate_shares_that_add_up(tasks_of_three, hosts):
    """Seven examples in batches of four, as one host has them; the last ones are partly empty."""

    def evaluated(**host):
        return list(eval_batches("cap", "train", **(SIZES | {"batch_size": 4}), **host))

    alone = evaluated()
    shares = [evaluated(host_index=i, host_count=hosts) for i in range(hosts)]
    assert [len(batches) for batches in shares] == [2] * hosts
    for step, (batch, examples) in enumerate(alone):
        parts = [share[step] for share in shares]
        assert [example for _, part in parts for example in part] == examples
        assert same({key: np.concatenate([p[key] for p, _ in parts]) for key in batch}, batch)
    # A host may have none at all.
    ((batch, examples),) = eval_batches(
        "cap", "train", limit=1, host_index=3, host_count=4, **SIZES
    )
    assert examples == [] and batch["image"].shape == (2, 24, 24, 3) and not batch["image"].any()


def test_evaluation_batches_have_the_features_of_training(tasks_of_three):
    (train,) = batches(1)
    for name in ("cap", "ask", "find", "find_describe"):
        batch, _ = next(eval_batches(name, "validation", **SIZES))
        assert batch.keys() == train.keys() | {"example_mask"}
        for key, value in train.items():
            assert (batch[key].dtype, batch[key].shape) == (value.dtype, value.shape)


def test_references_are_what_the_metric_compares_with(tasks_of_three, write_folder):
    ((_, examples),) = eval_batches("find", "validation", **SIZES)
    assert examples[1]["references"] == ["[0.025,0.100,0.275,0.750]"]
    ((_, examples),) = eval_batches("ask", "validation", **SIZES, limit=2)
    assert [e["references"] for e in examples] == [["yes"] * 9 + ["0"], ["yes"] * 9 + ["1"]]
    choice = {"image": None, "question": "?", "choices": ["x", "y"], "answer": 1}
    tasks.register({"pick": str(write_folder("pick", val=[choice]))})
    ((batch, examples),) = eval_batches("pick", "validation", **SIZES)
    assert examples[0]["references"] == ["B"]
    assert not batch["image_mask"].any()


def test_prompts_come_in_the_tokens_of_a_sentence_encoder_too(tasks_of_three, sentence_folder):
    tokenizer = instruction.load(sentence_folder, 9)
    [batch] = batches(1, instruction=tokenizer)
    assert batch["instruction"].shape == (SIZES["batch_size"], 9) and "prompt_text" not in batch
    want = tokenizer([decode(row) for row in batch["prompt"]])
    np.testing.assert_array_equal(batch["instruction"], want[0])
    np.testing.assert_array_equal(batch["instruction_mask"], want[1])
    assert (want[1].sum(axis=1) > 2).all()

    sizes = SIZES | {"batch_size": 4}
    given = eval_batches("ask", "validation", limit=3, instruction=tokenizer, **sizes)
    [(batch, examples)] = given
    want, _ = tokenizer([example["prompt"] for example in examples])
    np.testing.assert_array_equal(batch["instruction"][:3], want)
    assert not batch["instruction_mask"][3, 2:].any()  # the row that fills up is an empty text


def test_an_image_that_does_not_decode_is_named(write_folder):
    path = write_folder("cap", train=caption_records(5), val=caption_records(2))
    tasks.register({"cap": str(path)})
    whole = (path / "img/1.png").read_bytes()
    (path / "img/1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"Line 2 of split 'train' .*img/1\.png.* does not decode"):
        batches(5, {"cap": 1.0})
    with pytest.raises(UserError, match=r"Line 2 of split 'validation' .*img/1\.png"):
        list(eval_batches("cap", "validation", **SIZES))
    (path / "img/1.png").unlink()
    with pytest.raises(UserError, match=r"img/1\.png of .* cannot be read"):
        batches(5, {"cap": 1.0})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rates": {"capp": 1.0}}, r"task 'capp' is unknown\. Did you mean 'cap'"),
        ({"split": "dev"}, r"has no split 'dev'; it has 'train', 'validation'"),
        ({"start_step": -1}, r"start_step is -1"),
        ({"batch_size": 0}, r"batch_size is 0"),
        ({"target_length": 0}, r"target_length is 0"),
        ({"host_index": 2, "host_count": 2}, r"Host 2 of 2"),
        ({"host_count": 3}, r"batch of 8; the batch must be a multiple"),
    ],
)
def test_mistakes_are_told_at_the_call(tasks_of_three, options, sentence):
    with pytest.raises(UserError, match=sentence):
        train_batches(**({"rates": RATES, "seed": 0} | SIZES | options))


def test_a_limit_below_one_is_refused(tasks_of_three):
    with pytest.raises(UserError, match="limit is 0"):
        eval_batches("cap", "validation", **SIZES, limit=0)


def test_a_program_ends_while_a_stream_is_being_read(write_folder, run_python):
    """Threads that read ahead must not keep the interpreter from shutting down."""
    path = write_folder("ask", train=question_records(40))
    done = run_python(
        "import time\n"
        "from omni_smola.data import jsonl, pipeline, tasks\n"
        f"tasks.register({{'ask': {str(path)!r}}})\n"
        "read = jsonl.JsonlSource.read\n"
        "def slow_read(*args):\n"
        "    time.sleep(0.3)\n"
        "    return read(*args)\n"
        "jsonl.JsonlSource.read = slow_read\n"
        f"stream = pipeline.train_batches({{'ask': 1.0}}, seed=0, **{SIZES})\n"
        "next(stream)\n"
        f"rows = pipeline.eval_batches('ask', 'train', **{SIZES})\n"
        "next(rows)\n"
    )
    assert done.returncode == 0, done.stderr
