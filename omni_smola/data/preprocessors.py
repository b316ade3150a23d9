"""From the common record to prompt and target, one record to one example.

The prompts of PaLI (style "pali") and, in sentences, of instruction-tuned models ("instruction");
what they ask for is the same:

  caption   "caption in en"                                -> one of the captions
  question  "Answer in en: {question}"                     -> one of the answers
  statement "Answer in en: Is this true? {question}"       -> "yes" or "no"
  choice    "Answer in en: {question} (A) {..} (B) {..}"   -> "A"
  choice_text  the same prompt                             -> the text of the right choice
  box       "box of {expression}"                          -> "[x1,y1,x2,y2]", three decimals
  describe  "describe [x1,y1,x2,y2]"                       -> one of the expressions
  text      "{question}"                                   -> the first reference

"en" is the record's language. The words on the image follow as " OCR: {words}" where that is wanted
and the dataset has them.

Where there are several references, the target is one of them at random by the example's own seed:
over the epochs a model sees the annotators' distribution. For evaluation every reference is kept.
An example of a hidden test split has no references, and an empty target.
"""

import functools
import re
from collections.abc import Callable, Mapping

import numpy as np
import seqio
import tensorflow as tf

from omni_smola.data.frames import AUTO
from omni_smola.data.framing import FIELD, Framing, example, load
from omni_smola.data.sources import mapped
from omni_smola.errors import UserError

MAX_CHOICES = 26
_LETTERS = [chr(ord("A") + i) for i in range(MAX_CHOICES)]

PROMPTS = {
    "pali": {
        "caption": "caption in {language}",
        "question": "Answer in {language}: {question}",
        "statement": "Answer in {language}: Is this true? {question}",
        "choice": "Answer in {language}: {question} {options}",
        "box": "box of {question}",
        "describe": "describe {box}",
        "text": "{question}",
    },
    # MoME (arXiv 2407.12709) trains on instructions of this manner, whose words it does not print.
    "instruction": {
        "caption": "Describe the image in one sentence ({language}).",
        "question": "{question} Answer in a few words.",
        "statement": "Is this statement true? {question} Answer yes or no.",
        "choice": "{question} {options} Answer with the letter of the right choice.",
        "choice_text": "{question} {options} Answer with the right choice.",
        "box": "Where is {question}? Answer with its box as [x1,y1,x2,y2].",
        "describe": "Describe what is in the box {box}.",
        "text": "{question}",
    },
}

Record = Mapping[str, tf.Tensor]
Texts = dict[str, tf.Tensor]  # target (), references (r,), both strings


def _box_text(box: tf.Tensor) -> tf.Tensor:
    numbers = tf.strings.reduce_join(tf.strings.as_string(box, precision=3), separator=",")
    return tf.strings.join(["[", numbers, "]"])


def _options(choices: tf.Tensor) -> tf.Tensor:
    letters = tf.constant(_LETTERS)[: tf.size(choices)]
    return tf.strings.reduce_join(tf.strings.join(["(", letters, ") ", choices]), separator=" ")


def _prompt(template: str, record: Record) -> tf.Tensor:
    """The template with its {fields} filled in from the record."""
    fields = {
        "question": lambda: record["question"],
        "language": lambda: record["language"],
        "options": lambda: _options(record["choices"]),
        "box": lambda: _box_text(record["box"]),
    }
    parts = re.split(r"\{(\w+)\}", template)
    return tf.strings.join([fields[p]() if i % 2 else p for i, p in enumerate(parts)])


def _with_ocr(prompt: tf.Tensor, words: tf.Tensor, limit: int) -> tf.Tensor:
    joined = tf.strings.reduce_join(words[:limit], separator=" ")
    return tf.where(tf.size(words) > 0, tf.strings.join([prompt, " OCR: ", joined]), prompt)


def _one_of(record: Record) -> Texts:
    references = record["references"]
    # One more, empty, so that there is something to take where there are none.
    index = tf.random.stateless_uniform(
        (), record["_seed"], 0, tf.maximum(tf.size(references), 1), tf.int32
    )
    target = tf.concat([references, [""]], axis=0)[index]
    return {"target": target, "references": references}


def _choice(record: Record, *, as_text: bool) -> Texts:
    index = record["answer_index"]
    answers = record["choices"] if as_text else tf.constant(_LETTERS)
    hidden = index < 0
    target = tf.where(hidden, "", answers[tf.maximum(index, 0)])
    return {"target": target, "references": tf.boolean_mask(target[tf.newaxis], [~hidden])}


def _box(record: Record) -> Texts:
    target = _box_text(record["box"])
    return {"target": target, "references": target[tf.newaxis]}


def _text(record: Record) -> Texts:
    references = record["references"]
    return {"target": references[0], "references": references}


KINDS: dict[str, Callable[[Record], Texts]] = {
    "caption": _one_of,
    "question": _one_of,
    "statement": _one_of,
    "choice": functools.partial(_choice, as_text=False),
    "choice_text": functools.partial(_choice, as_text=True),
    "box": _box,
    "describe": _one_of,
    "text": _text,
}


def _tokens(
    framing: Framing, texts: Texts, image: tf.Tensor, lengths: Mapping[str, int] | None
) -> dict[str, tf.Tensor]:
    """prompt (p,), target (t,) and frame (3,), all int32."""
    lengths = lengths or {}

    def encode(prompt: bytes, target: bytes, image: bool) -> tuple[np.ndarray, ...]:
        return example(
            framing,
            prompt.decode("utf-8", "replace"),
            target.decode("utf-8", "replace"),
            image=bool(image),
            prompt_length=lengths.get("prompt"),
            target_length=lengths.get("target"),
        )

    made = tf.numpy_function(encode, [texts["prompt"], texts["target"], image], [tf.int32] * 3)
    shapes = {"prompt": (None,), "target": (None,), FIELD: (3,)}
    return {
        name: tf.ensure_shape(ids, shape)
        for (name, shape), ids in zip(shapes.items(), made, strict=True)
    }


def check_style(style: str) -> None:
    """Raises UserError for a style of prompts that there is not."""
    if style not in PROMPTS:
        raise UserError(
            f"There are no prompts of the style {style!r}: choose one of {', '.join(PROMPTS)} "
            "(--config.data.prompts=...)."
        )


def texts_of(kind: str, style: str = "pali", ocr: int = 0) -> Callable[[Record], Texts]:
    """What a record of one kind asks and wants: record -> prompt (), target (), references (r,).

    Args:
      kind: a key of KINDS. style: a key of PROMPTS.
      ocr: at most so many words on the image follow the prompt; 0 is none.

    Raises:
      UserError: an unknown style.
    """
    check_style(style)
    template = PROMPTS[style].get(kind) or PROMPTS[style]["choice"]  # of choice_text

    def texts(record: Record) -> Texts:
        prompt = _prompt(template, record)
        if ocr:
            prompt = _with_ocr(prompt, record["ocr"], ocr)
        return KINDS[kind](record) | {"prompt": prompt}

    return texts


def preprocessor(
    kind: str, style: str = "pali", ocr: int = 0, framing: Framing | None = None
) -> Callable[..., tf.data.Dataset]:
    """The SeqIO preprocessor of one kind.

    Args:
      kind, style, ocr: see `texts_of`.
      framing: makes token ids of texts; None is a T5's, with the prompt feature's vocabulary.

    The function it returns maps common records to examples with

      id () string, image (n,) string, prompt (p,) int32, target (t,) int32, prompt_text () string,
      references (r,) string: what the task's metric compares a prediction with,
      groups () string: names of groups that are scored apart, question () string as it is stored;
      and frame (3,) int32, see `Framing.spans`.

    Where `sequence_length` cuts a text, what its frame puts around it stays. One map for all of it:
    a map of tf.data has a price per element, and a buffer.
    """
    write = texts_of(kind, style, ocr)

    def to_example(
        record: Record, framing: Framing, sequence_length: Mapping[str, int] | None
    ) -> Texts:
        texts = write(record)
        return _tokens(framing, texts, tf.size(record["image"]) > 0, sequence_length) | {
            "id": record["id"],
            "image": record["image"],
            "prompt_text": texts["prompt"],
            "references": texts["references"],
            "groups": record["groups"],
            "question": record["question"],
        }

    def preprocess(
        dataset: tf.data.Dataset,
        output_features: Mapping[str, seqio.Feature],
        sequence_length: Mapping[str, int] | None = None,
    ) -> tf.data.Dataset:
        convert = functools.partial(
            to_example,
            framing=framing or load(AUTO, output_features["prompt"].vocabulary),
            sequence_length=sequence_length,
        )
        return mapped(dataset, convert, parallel=2)

    return preprocess
