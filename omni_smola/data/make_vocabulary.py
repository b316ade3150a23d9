"""Makes the vocabulary shipped with the package: python -m omni_smola.data.make_vocabulary.

SentencePiece is trained on the prompts and targets of the mini suite's train splits and on the
English of its text pretraining. The same packages give the same file, byte for byte.
"""

import argparse
import collections
import contextlib
import io
import pathlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from omni_smola.data.builders.mini_suite import everyday, families, prose
from omni_smola.data.builders.mini_suite.records import Record
from omni_smola.data.vocabulary import SHIPPED

SIZE = 3072
COORDINATES = tuple(f"{k / 24:.3f}" for k in range(25))
# Enough of each config for stable counts; prose weighs about as much as two families.
_EXAMPLES = 3000
_PROSE_REPEATS = 4
_EVERYDAY = 12000  # sentences
_SPACE = "\u2581"  # how SentencePiece writes the space before a word
_LONGEST_PIECE = 16
_RAREST = 4
# Code points in hexadecimal: a no-break space is a space. The suite is ASCII, and the tables of
# NFKC would add 240 kB; with no rule at all TensorFlow's tokenizer says so on every use.
_NORMALIZATION = (("A0", "20"),)


def texts_of(record: Record, kind: str) -> Iterator[str]:
    """The prompts and targets that the tasks make of a record (see preprocessors.py).

    Args:
      record: a common record of the mini suite.
      kind: the name of its config.
    """
    question = record["question"]
    if kind.endswith("caption"):
        yield "caption in en"
        yield from record["references"]
    elif kind.endswith("box"):
        corners = ",".join(f"{corner:.3f}" for corner in record["box"])
        for expression in record["references"]:
            yield f"box of {expression}"
            yield expression
        yield f"describe [{corners}]"
        yield f"[{corners}]"
    elif kind == "choice":
        options = zip("ABCD", record["choices"], strict=False)
        yield f"Answer in en: {question} " + " ".join(f"({a}) {text}" for a, text in options)
        yield "ABCD"[record["answer_index"]]
        yield from record["references"]
    elif kind == "pretrain_text":
        yield question
        yield from record["references"]
    else:
        yield f"Answer in en: {question}"
        yield from dict.fromkeys(record["references"])


def corpus() -> Iterator[str]:
    """All training texts, in a fixed order."""
    for config, family in families.FAMILIES.items():
        if config == "pretrain_box":  # says nothing that the box family does not
            continue
        for index in range(min(family.sizes["train"], _EXAMPLES)):
            yield from texts_of(families.example(config, "train", index), config)
    for _ in range(_PROSE_REPEATS):
        yield from prose.of_side("train")
    rng = np.random.default_rng(0)
    yield from (everyday.sentence(rng) for _ in range(_EVERYDAY))


def _seeds(texts: Iterable[str]) -> list[tuple[str, int]]:
    """Candidate pieces with their counts: every part of a word that is met often enough.

    SentencePiece's own candidates are parts met in two different words: it would never propose
    the whole of "Answer", which every prompt has but no other word contains.
    """
    words = collections.Counter(word for text in texts for word in text.split())
    counts: dict[str, int] = collections.Counter()
    for word, count in words.items():
        marked = _SPACE + word
        for start in range(len(marked)):
            for end in range(start + 1, min(start + _LONGEST_PIECE, len(marked)) + 1):
                part = marked[start:end]
                # "year?" apart from "year" would be one more word to learn.
                if len(part) == 1 or not re.search(r"\d|.[?]$", part):
                    counts[part] += count
    kept = [(part, n) for part, n in counts.items() if n >= _RAREST or len(part) == 1]
    return sorted(kept, key=lambda pair: (-pair[1] * len(pair[0]), pair[0]))


def train(texts: Iterable[str], size: int = SIZE, symbols: Sequence[str] = COORDINATES) -> bytes:
    """Trains a SentencePiece unigram model.

    Args:
      texts: one training text each.
      size: number of pieces, special ones, bytes and `symbols` included.
      symbols: strings that are always one piece.

    Returns:
      The serialised model: pad 0, eos 1, unk 2, no bos.
    """
    texts = list(texts)
    stream = io.BytesIO()
    with _tsv(_seeds(texts)) as seeds, _tsv(_NORMALIZATION) as rules:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=stream,
            seed_sentencepieces_file=seeds.name,
            model_type="unigram",
            vocab_size=size,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            byte_fallback=True,
            split_digits=True,
            # Lets "(A)" and "en:" be pieces, which shortens prompts.
            split_by_unicode_script=False,
            user_defined_symbols=list(symbols),
            normalization_rule_tsv=rules.name,
            character_coverage=1.0,
            max_sentence_length=8192,
            num_threads=1,
            minloglevel=2,
        )
    return _without_paths(stream.getvalue())


@contextlib.contextmanager
def _tsv(rows: Iterable[Sequence]) -> Iterator[IO[str]]:
    """A temporary file of tab-separated rows."""
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as file:
        file.writelines("\t".join(map(str, row)) + "\n" for row in rows)
        file.flush()
        yield file


def _without_paths(model: bytes) -> bytes:
    """The model without the names of the temporary files it was trained with."""
    parsed = sentencepiece_model_pb2.ModelProto.FromString(model)
    # The Python classes of sentencepiece 0.2.1 do not know the field yet.
    parsed.trainer_spec.DiscardUnknownFields()
    parsed.normalizer_spec.ClearField("normalization_rule_tsv")
    return parsed.SerializeToString(deterministic=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains the vocabulary and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=SHIPPED, help="file to write")
    options = parser.parse_args(arguments)
    model = train(corpus())
    options.output.write_bytes(model)
    print(f"wrote {options.output}: {SIZE} pieces, {len(model)} bytes")


if __name__ == "__main__":
    main()
