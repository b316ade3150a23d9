"""The tokenizer of a file or of a checkpoint's folder, without TensorFlow or SeqIO.

`omni_smola.data.vocabulary.load` gives the same tokenizers to SeqIO.
"""

import pathlib
from collections.abc import Iterable
from os import PathLike
from typing import Protocol

from omni_smola.data.vocabulary import SHIPPED, added, hugging_face, pieces
from omni_smola.data.vocabulary.base import PythonTokenizer
from omni_smola.errors import UserError

# The names that Hugging Face's folders give to a SentencePiece model.
_PIECES = ("spiece.model", "tokenizer.model")


class Tokenizer(Protocol):
    """Text to token ids and back; a seqio.Vocabulary is one, too."""

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text."""
        ...

    @property
    def vocab_size(self) -> int:
        """Ids are below it."""
        ...

    def encode(self, s: str) -> list[int]:
        """The ids of a text, without the one that ends it."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, up to the first that ends it."""
        ...


def load_tokenizer(path: str | PathLike[str] = "shipped") -> PythonTokenizer:
    """The tokenizer of a file or of a checkpoint's folder.

    A folder is one of Hugging Face's: its SentencePiece model is taken, spiece.model or
    tokenizer.model, with the tokens that other files add to it; or else its tokenizer.json, for
    which the package `tokenizers` must be installed. Where both are there and tokenizer.json adds
    pieces of text behind those of the model, such as PaliGemma's <loc0000>, it is tokenizer.json.

    Args:
      path: a SentencePiece .model file, a tokenizer.json, a folder, or "shipped", the vocabulary of
        the backbone in this package.

    Raises:
      UserError: there is none at `path`, its files are damaged or contradict each other, or it
        cannot be used here; see `hugging_face.load`.
    """
    file = SHIPPED if path == "shipped" else pathlib.Path(path).expanduser()
    if file.is_dir():
        return _of_folder(file)
    if not file.is_file():
        raise UserError(
            f"There is no vocabulary file '{file}': give the path of a SentencePiece .model file, "
            "or the folder of a checkpoint with its tokenizer."
        )
    return hugging_face.load(file) if file.name == hugging_face.FILE else pieces.Pieces(file)


def _of_folder(folder: pathlib.Path) -> PythonTokenizer:
    complete = folder / hugging_face.FILE
    models = [folder / name for name in _PIECES if (folder / name).is_file()]
    if models:
        model = pieces.Pieces(models[0])
        listed = added.of_tokenizer(complete)
        if all(i < model.vocab_size for i, token in listed.items() if not token.special):
            return pieces.extended(model, listed)
    if complete.is_file():
        return hugging_face.load(complete)
    raise UserError(
        f"The folder {folder} has no tokenizer: copy the checkpoint's {' or '.join(_PIECES)}, or "
        f"{hugging_face.FILE} into it, or name another file or folder "
        "(--config.data.vocabulary=PATH, or tokenizer=load_tokenizer(PATH) in Python)."
    )
