"""What tokenizers have in common that are plain Python: no SeqIO, no TensorFlow."""

import abc
import pathlib
from collections.abc import Iterable
from typing import Any


class PythonTokenizer(abc.ABC):
    """Text to token ids and back; padding is id 0.

    Attributes:
      path: of the file.
      tokenizer: what the library that reads the file made of it.
      eos_id: the token that ends a text.
      bos_id: the token that begins one; None where there is none.
      unk_id: what stands for an id beyond the vocabulary; None where such ids decode to nothing.
      vocab_size: ids are below it.
    """

    path: pathlib.Path
    tokenizer: Any
    eos_id: int
    bos_id: int | None
    unk_id: int | None
    vocab_size: int

    def encode(self, s: str | bytes) -> list[int]:
        """The ids of a text, without the one that ends it; bytes are UTF-8."""
        return self._encode(s.decode("utf-8", "replace") if isinstance(s, bytes) else s)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, up to the first that ends it."""
        known = [int(i) for i in ids]
        if self.unk_id is not None:
            known = [self.unk_id if i >= self.vocab_size else i for i in known]
        if self.eos_id in known:
            known = known[: known.index(self.eos_id) + 1]
        return self._decode(known)

    @abc.abstractmethod
    def _encode(self, s: str) -> list[int]: ...

    @abc.abstractmethod
    def _decode(self, ids: Iterable[int]) -> str: ...
