"""The shipped SentencePiece vocabulary, and how any other one is loaded.

`mini.model` is made by `python -m omni_smola.data.make_vocabulary`: 3,072 unigram pieces,
pad 0, eos 1, unk 2, no bos, bytes for what no piece covers, single digits, and one piece for
each coordinate of the mini suite's boxes.

Importing this package imports neither SeqIO nor TensorFlow; only `load` needs them.
"""

import os
import pathlib
from typing import Any

SHIPPED = pathlib.Path(__file__).parent / "mini.model"


def load(path: str | os.PathLike[str] | None = None) -> Any:
    """The vocabulary of a file, or of a checkpoint's folder; the shipped one if `path` is None.

    It has the ids and texts of `omni_smola.data.tokenizer.load_tokenizer`.

    Returns:
      A seqio.Vocabulary with pad_id 0.

    Raises:
      UserError: as `load_tokenizer`.
    """
    from omni_smola.data.vocabulary import of_seqio

    return of_seqio.load(path)
