"""Tokenizers as vocabularies of SeqIO's."""

import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from omni_smola.data.tokenizer import load_tokenizer
from omni_smola.data.vocabulary.base import PythonTokenizer
from omni_smola.data.vocabulary.pieces import Pieces


class PythonVocabulary(seqio.Vocabulary):
    """A tokenizer in plain Python, which TensorFlow calls.

    Attributes:
      python: the tokenizer.
    """

    def __init__(self, python: PythonTokenizer):
        super().__init__()
        self.python = python

    @property
    def path(self) -> pathlib.Path:
        """The tokenizer's file."""
        return self.python.path

    @property
    def tokenizer(self) -> Any:
        """What the library that reads the file made of it."""
        return self.python.tokenizer

    @property
    def eos_id(self) -> int:
        """The token that ends a text."""
        return self.python.eos_id

    @property
    def bos_id(self) -> int | None:
        """See `PythonTokenizer`."""
        return self.python.bos_id

    @property
    def unk_id(self) -> int | None:
        """See `PythonTokenizer`."""
        return self.python.unk_id

    @property
    def _base_vocab_size(self) -> int:
        return self.python.vocab_size

    def _encode(self, s: str | bytes) -> list[int]:
        return self.python.encode(s)

    def _decode(self, ids: Iterable[int]) -> str:
        return self.python.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        """A scalar string -> (n,) int32."""

        def encode(text: bytes) -> np.ndarray:
            return np.array(self._encode(text), np.int32)

        return tf.ensure_shape(tf.numpy_function(encode, [s], tf.int32), (None,))

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        """(..., n) int32 -> (...) string."""

        def decode(rows: np.ndarray) -> np.ndarray:
            texts = [self._decode(row).encode() for row in rows.reshape(-1, rows.shape[-1])]
            return np.array(texts, object).reshape(rows.shape[:-1])

        return tf.ensure_shape(tf.numpy_function(decode, [ids], tf.string), ids.shape[:-1])

    def __eq__(self, other: object) -> bool:
        """Whether both are of equal tokenizers."""
        return isinstance(other, PythonVocabulary) and self.python == other.python


def load(path: str | os.PathLike[str] | None = None) -> seqio.Vocabulary:
    """See `omni_smola.data.vocabulary.load`."""
    found = load_tokenizer("shipped" if path is None else path)
    if isinstance(found, Pieces):
        return seqio.SentencePieceVocabulary(str(found.path), extra_ids=0)
    return PythonVocabulary(found)
