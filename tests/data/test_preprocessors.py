"""Prompts and targets, word for word."""

import numpy as np
import pytest
import seqio
import tensorflow as tf

from omni_smola.data import vocabulary as vocabularies
from omni_smola.data.preprocessors import PROMPTS, preprocessor, texts_of
from omni_smola.data.sources import parse_record, serialize_record
from omni_smola.errors import UserError


def texts(kind, seed=(0, 0), style="pali", ocr=0, more=None, **fields):
    record = parse_record(tf.constant(serialize_record(id="1", **fields))) | (more or {})
    made = texts_of(kind, style, ocr)(record | {"_seed": tf.constant(seed, tf.int32)})
    references = [r.decode() for r in made["references"].numpy()]
    return made["prompt"].numpy().decode(), made["target"].numpy().decode(), references


def test_caption():
    assert texts("caption", references=["a dog"]) == ("caption in en", "a dog", ["a dog"])


def test_question():
    assert texts("question", question="how many?", references=["3"]) == (
        "Answer in en: how many?",
        "3",
        ["3"],
    )


CHOICE = {"question": "which?", "choices": ["cat", "dog"], "answer_index": 1, "references": ["dog"]}


def test_choice_is_answered_by_letter_or_by_text():
    prompt = "Answer in en: which? (A) cat (B) dog"
    assert texts("choice", **CHOICE) == (prompt, "B", ["B"])
    assert texts("choice_text", **CHOICE) == (prompt, "dog", ["dog"])


BOX = {"question": "the dog", "references": ["the dog", "a pet"], "box": [0.0, 1 / 3, 0.5, 1.0]}


def test_box_and_describe():
    written = "[0.000,0.333,0.500,1.000]"
    assert texts("box", **BOX) == ("box of the dog", written, [written])
    prompt, target, references = texts("describe", **BOX)
    assert prompt == f"describe {written}"
    assert target in references
    assert references == ["the dog", "a pet"]


def test_instructions_are_sentences():
    style = {"style": "instruction"}
    assert texts("caption", references=["a dog"], **style)[0] == (
        "Describe the image in one sentence (en)."
    )
    assert texts("question", question="how many?", references=["3"], **style)[0] == (
        "how many? Answer in a few words."
    )
    assert texts("choice", **CHOICE, **style)[:2] == (
        "which? (A) cat (B) dog Answer with the letter of the right choice.",
        "B",
    )
    assert texts("choice_text", **CHOICE, **style)[:2] == (
        "which? (A) cat (B) dog Answer with the right choice.",
        "dog",
    )
    assert texts("statement", question="it is red.", references=["yes"], **style)[0] == (
        "Is this statement true? it is red. Answer yes or no."
    )
    assert texts("box", **BOX, **style)[0] == (
        "Where is the dog? Answer with its box as [x1,y1,x2,y2]."
    )
    assert texts("describe", **BOX, **style)[0] == (
        "Describe what is in the box [0.000,0.333,0.500,1.000]."
    )
    assert all(PROMPTS["pali"].keys() <= prompts.keys() for prompts in PROMPTS.values())


def test_a_style_that_is_none_is_refused():
    with pytest.raises(UserError, match="style 'blip': choose one of pali, instruction"):
        preprocessor("caption", "blip")


def test_the_language_is_the_records():
    german = {"language": tf.constant("de")}
    assert texts("caption", references=["ein Hund"], more=german)[0] == "caption in de"


def test_words_on_the_image_follow_the_prompt():
    words = {"ocr": tf.constant(["STOP", "Main", "St."])}
    fields = {"question": "what?", "references": ["stop"], "more": words}
    assert texts("question", ocr=2, **fields)[0] == "Answer in en: what? OCR: STOP Main"
    assert texts("question", **fields)[0] == "Answer in en: what?"
    without = fields | {"more": {"ocr": tf.zeros(0, tf.string)}}
    assert texts("question", ocr=2, **without)[0] == "Answer in en: what?"


def test_hidden_answers_leave_the_target_empty():
    assert texts("question", question="what?") == ("Answer in en: what?", "", [])
    hidden = CHOICE | {"answer_index": -1, "references": []}
    assert texts("choice", **hidden)[1:] == ("", [])
    assert texts("choice_text", **hidden)[1:] == ("", [])


def test_text():
    assert texts("text", question="a b <x>", references=["c"]) == ("a b <x>", "c", ["c"])


@pytest.mark.parametrize("kind", ["caption", "question", "describe"])
def test_the_target_follows_the_annotators(kind):
    answers = ["yes"] * 7 + ["no"] * 3
    fields = {"question": "?", "references": answers, "box": [0.1, 0.1, 0.2, 0.2]}
    targets = [texts(kind, seed=(5, k), **fields)[1] for k in range(300)]
    share = targets.count("yes") / 300
    assert 0.6 < share < 0.8
    assert targets == [texts(kind, seed=(5, k), **fields)[1] for k in range(300)]


def test_token_ids_end_with_eos_also_where_they_are_cut():
    vocabulary = vocabularies.load()
    feature = seqio.Feature(vocabulary, add_eos=True)
    question = "which of the many coloured shapes in the image is the largest one?"
    serialized = serialize_record(id="1", question=question, references=["the red circle"])
    record = parse_record(tf.constant(serialized)) | {"_seed": tf.zeros(2, tf.int32)}
    dataset = tf.data.Dataset.from_tensors(record)

    def run(prompt_length, target_length):
        made = preprocessor("question")(
            dataset,
            output_features={"prompt": feature, "target": feature},
            sequence_length={"prompt": prompt_length, "target": target_length},
        )
        (example,) = made.as_numpy_iterator()
        return example

    whole, cut = run(64, 64), run(6, 2)
    full = [*vocabulary.encode("Answer in en: " + question), vocabulary.eos_id]
    np.testing.assert_array_equal(whole["prompt"], full)
    np.testing.assert_array_equal(cut["prompt"], [*full[:5], vocabulary.eos_id])
    assert len(cut["target"]) == 2
    assert cut["target"][-1] == vocabulary.eos_id
    assert whole["prompt_text"].decode() == "Answer in en: " + question
