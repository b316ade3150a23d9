"""The shipped SentencePiece vocabulary and how any other one is loaded.

`mini.model` is made by `python -m omni_smola.data.make_vocabulary`: 3,072 unigram pieces,
pad 0, eos 1, unk 2, no bos, bytes for what no piece covers, single digits, and one piece for
each coordinate of the mini suite's boxes.
"""

import os
import pathlib

import seqio

from omni_smola.errors import UserError

SHIPPED = pathlib.Path(__file__).parent / "mini.model"


def load(path: str | os.PathLike | None = None) -> seqio.SentencePieceVocabulary:
    """The vocabulary in a SentencePiece model file; the shipped one if `path` is None.

    Raises:
      UserError: there is no such file, or it is not a SentencePiece model.
    """
    file = SHIPPED if path is None else pathlib.Path(path).expanduser()
    if not file.is_file():
        raise UserError(
            f"There is no vocabulary file '{file}'; give the path of a SentencePiece .model file, "
            "or None for the one shipped with omni_smola."
        )
    vocabulary = seqio.SentencePieceVocabulary(str(file), extra_ids=0)
    try:
        size = vocabulary.vocab_size
    except Exception as error:  # sentencepiece raises RuntimeError, its C++ TF op others
        raise UserError(
            f"The vocabulary file '{file}' is not a SentencePiece model ({error}); give the path "
            "of a .model file written by SentencePiece."
        ) from error
    if size <= 0:
        raise UserError(f"The vocabulary file '{file}' has no pieces; make it anew.")
    return vocabulary
