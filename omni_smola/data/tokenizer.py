"""Tokenizers without TensorFlow: SentencePiece models, read by `sentencepiece` itself.

They give the same ids and texts as `omni_smola.data.vocabulary`, whose classes are SeqIO's. Those
can be used in their place: both fit the protocol `Tokenizer`.
"""

import functools
import json
import pathlib
from collections.abc import Iterable
from os import PathLike
from typing import Protocol

import sentencepiece

from omni_smola.errors import UserError, first_line

SHIPPED = pathlib.Path(__file__).parent / "vocabulary" / "mini.model"
# The names that Hugging Face's folders give to a SentencePiece model.
_PIECES = ("spiece.model", "tokenizer.model")
_OTHER = "tokenizer.json"


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


class Pieces:
    """A SentencePiece model with padding as id 0.

    Attributes:
      path: of the model.
      eos_id: the piece that ends a text.
      vocab_size: number of pieces.
    """

    def __init__(self, path: pathlib.Path):
        """Reads the model; raises UserError if it is none, or cannot be used here."""
        self.path = path
        try:
            self._model = sentencepiece.SentencePieceProcessor()
            self._model.Load(str(path))
            self.vocab_size = self._model.GetPieceSize()
        except Exception as error:  # sentencepiece raises RuntimeError, OSError and others
            raise UserError(
                f"The file {path} is not a SentencePiece model ({first_line(error)}): give the "
                "path of a .model file that SentencePiece has written."
            ) from error
        self.eos_id = self._model.eos_id()
        if self.eos_id < 0 or not (self._model.IsControl(0) or self._model.IsUnknown(0)):
            raise UserError(
                f"The SentencePiece model {path} has no piece that ends a text, or its piece 0, "
                "which is padding here, is one of text: train it with eos_id and pad_id=0."
            )

    def encode(self, s: str) -> list[int]:
        """See `Tokenizer.encode`."""
        return self._model.EncodeAsIds(s)

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer.decode`; ids beyond the vocabulary are unknown pieces."""
        unknown = self._model.unk_id()
        known = [int(i) if 0 <= i < self.vocab_size else unknown for i in ids]
        if self.eos_id in known:
            known = known[: known.index(self.eos_id)]
        return self._model.DecodeIds(known)


@functools.lru_cache(maxsize=8)
def load_tokenizer(path: str | PathLike[str] = "shipped") -> Tokenizer:
    """The tokenizer of a file or of a checkpoint's folder.

    Args:
      path: a SentencePiece .model file; a folder with spiece.model or tokenizer.model; or
        "shipped", the vocabulary of the backbone in this package.

    Raises:
      UserError: there is none at `path`, or it cannot be used here.
    """
    file = SHIPPED if path == "shipped" else pathlib.Path(path).expanduser()
    if file.is_file():
        return Pieces(file)
    models = [file / name for name in _PIECES if (file / name).is_file()]
    pieces = Pieces(models[0]) if models else None
    complete = file / _OTHER
    if pieces is not None and not _adds_text(complete, pieces.vocab_size):
        return pieces
    if complete.is_file():
        raise UserError(
            f"The tokenizer {complete} is read through SeqIO: pass "
            f"tokenizer=omni_smola.data.vocabulary.load({str(file)!r}), where SeqIO is installed."
        )
    raise UserError(
        f"There is no tokenizer at {file}: give a SentencePiece .model file, or the folder of a "
        f"checkpoint with {' or '.join(_PIECES)}."
    )


def _adds_text(file: pathlib.Path, size: int) -> bool:
    """Whether a tokenizer.json adds pieces of text to its `size`, as PaliGemma's <loc0000>."""
    if not file.is_file():
        return False
    try:
        added = json.loads(file.read_text(encoding="utf-8")).get("added_tokens") or []
        return any(token["id"] >= size and not token.get("special", False) for token in added)
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"The file {file} is no tokenizer ({error}): copy it again.") from error
