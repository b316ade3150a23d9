"""Prompts and answers as ids, against the families' own processors and chat templates."""

import numpy as np
import pytest
import seqio
import tensorflow as tf
from PIL import Image

from omni_smola.data import ask
from omni_smola.data.features import Converter
from omni_smola.data.framing import FIELD
from omni_smola.data.preprocessors import preprocessor
from omni_smola.data.sources import parse_record, serialize_record

pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

from . import prompt_families as families

VISUAL = -7  # stands for the placeholder of a visual token, whatever its id


@pytest.fixture(scope="module", params=families.CASES)
def case(request, tmp_path_factory):
    """A family and its folder."""
    found = families.CASES[request.param]
    return found, found.make(tmp_path_factory.mktemp("folder"))


def marked(case, ids):
    """The placeholders of the image as VISUAL: the one id that fills as many places in a row."""
    if not case.image:
        return ids
    same = (i for i in range(len(ids)) if len(set(ids[i : i + families.VISUAL])) == 1)
    start = next(same)
    return [*ids[:start], *[VISUAL] * families.VISUAL, *ids[start + families.VISUAL :]]


def test_prompts(case):
    case, folder = case
    framing, theirs = case.framing(folder), case.theirs(folder)
    for prompt in families.PROMPTS:
        want = marked(case, theirs(prompt))
        assert case.ours(framing, prompt, VISUAL) == want, prompt


def test_the_frame_of_before_is_another_one_for_decoders(case):
    case, folder = case
    old, theirs = case.framing(folder, "eos"), case.theirs(folder)
    same = [case.ours(old, p, VISUAL) == marked(case, theirs(p)) for p in families.PROMPTS]
    assert all(same) if case.family == "t5" else not any(same)


def test_a_long_prompt_is_cut_and_its_frame_is_not(case):
    case, folder = case
    framing = case.framing(folder)
    long, short = families.PROMPTS[-1].strip(), "a"
    whole, least = (framing.prompt(p, image=case.image) for p in (long, short))
    _, start, end = framing.spans(whole, image=case.image)
    tail = whole[end:]
    for length in (len(least), len(least) + 7, len(whole) - 1):
        cut = framing.prompt(long, length, image=case.image)
        assert len(cut) == length
        kept = length - len(tail) - framing.frame.ends_prompt
        assert cut == whole[:kept] + whole[len(whole) - length + kept :], length
    assert framing.prompt(long, len(whole), image=case.image) == whole
    if case.family == "t5":
        tokenizer = families.tokenizer_of(folder)
        want = tokenizer(long, truncation=True, max_length=20).input_ids
        assert framing.prompt(long, 20, image=False) == want
    assert 0 < start < end or case.family == "t5"


@pytest.mark.parametrize("answer", families.ANSWERS)
def test_answers_and_what_is_trained_of_them(case, answer):
    case, folder = case
    framing = case.framing(folder)
    prompt = "caption in en"
    ids, trained = case.answer(folder, prompt, answer)
    target = framing.answer(answer)
    assert target == [i for i, counts in zip(ids, trained, strict=True) if counts]
    if case.family not in ("t5", "t5gemma2"):  # one sequence
        first = case.ours(framing, prompt, VISUAL)
        assert first == marked(case, ids)[: len(first)]
        assert len(first) + len(target) == len(ids)
    assert target[-1] == framing.end_id
    assert framing.end_id not in target[:-1]
    # Cut, it is the beginning of the answer and its end.
    length = max(len(target) - 1, len(framing.answer("")))
    assert framing.answer(answer, length)[-1] == framing.end_id
    assert len(framing.answer(answer, length)) == length


def png(folder):
    file = folder / "image.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
    return file


def test_training_and_prediction_make_the_same_of_all_prompts(case):
    case, folder = case
    framing, width, length = case.framing(folder), 90, 12
    file = png(folder)
    image = file.read_bytes() if case.image else None
    records = [
        serialize_record(id=str(i), question=prompt, references=["a dog"], image=image)
        for i, prompt in enumerate(families.PROMPTS)
    ]
    dataset = tf.data.Dataset.from_tensor_slices(records).map(parse_record)
    lengths = {"prompt": width, "target": length, "image": 1, FIELD: 1}
    made = preprocessor("text", framing=framing)(dataset, {}, lengths)
    extra = {FIELD: seqio.FeatureConverter.FeatureSpec(tf.int32)}
    rows = list(Converter(8, extra)(made, lengths).as_numpy_iterator())
    assert len(rows) == len(families.PROMPTS) > 30
    target = framing.answer("a dog")
    for prompt, row in zip(families.PROMPTS, rows, strict=True):
        ids = framing.prompt(prompt, width, image=case.image)
        assert row["prompt"].tolist() == ids + [0] * (width - len(ids))
        assert row["prompt_mask"].tolist() == [True] * len(ids) + [False] * (width - len(ids))
        assert row["target"].tolist() == target + [0] * (length - len(target))
        assert row["target_mask"].sum() == len(target)
        asked = ask.make_batch(
            str(file) if case.image else None,
            prompt,
            framing=framing,
            prompt_length=width,
            resolution=8,
        )
        for name in ("prompt", "prompt_mask", "image_mask"):
            np.testing.assert_array_equal(asked[name][0], row[name])
        if framing.frame.bare:
            assert FIELD not in asked
        else:
            np.testing.assert_array_equal(asked[FIELD][0], row[FIELD])
