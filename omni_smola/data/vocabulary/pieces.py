"""SentencePiece models, and the tokens that were added to them."""

import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from omni_smola.data.vocabulary import added
from omni_smola.data.vocabulary.added import Token
from omni_smola.data.vocabulary.base import PythonTokenizer
from omni_smola.errors import UserError, first_line
from omni_smola.json_object import read_if_there


class Pieces(PythonTokenizer):
    """A SentencePiece model alone."""

    def __init__(self, path: pathlib.Path):
        """Reads the model; raises UserError if it is none, or cannot be used here."""
        model = sentencepiece.SentencePieceProcessor()
        try:
            proto = path.read_bytes()
            # SentencePiece reads a piece up to its first zero byte, and ends the process at an
            # empty one.
            parsed = sentencepiece_model_pb2.ModelProto.FromString(proto)
            if not all(_is_text(each.piece) for each in parsed.pieces):
                raise ValueError("one of its pieces is empty or no text")
            model.LoadFromSerializedProto(proto)
            size = model.GetPieceSize()
        except Exception as error:  # of reading, of protobuf, and sentencepiece's own
            raise UserError(
                f"The vocabulary file '{path}' is not a SentencePiece model ({first_line(error)}): "
                "give the path of a .model file written by SentencePiece."
            ) from error
        if size <= 0:
            raise UserError(f"The vocabulary file '{path}' has no pieces; make it anew.")
        if model.eos_id() < 0 or not (model.IsControl(0) or model.IsUnknown(0)):
            raise UserError(
                f"The vocabulary file '{path}' has no piece that ends a text, or its piece 0, "
                "which stands for padding here, is one of text: make it with eos_id and pad_id=0."
            )
        self.path, self.tokenizer, self.vocab_size = path, model, size
        self.eos_id, self.unk_id = model.eos_id(), model.unk_id()
        self.bos_id = model.bos_id() if model.bos_id() >= 0 else None

    def _encode(self, s: str) -> list[int]:
        return self.tokenizer.EncodeAsIds(s)

    def _decode(self, ids: Iterable[int]) -> str:
        return self.tokenizer.DecodeIds([i if i >= 0 else self.unk_id for i in ids])


class ExtendedPieces(PythonTokenizer):
    """A SentencePiece model, and added tokens, each of them one piece.

    A text is cut at the added tokens, the longest first, and what is between is encoded by the
    model, as transformers does. Special tokens in a text are text, and decode to nothing.

    Attributes:
      added: id -> token, beyond the model's pieces or among them.
    """

    def __init__(
        self,
        path: pathlib.Path,
        pieces: sentencepiece.SentencePieceProcessor,
        tokens: Mapping[int, Token],
        eos_id: int,
        first: bool,
    ):
        """A tokenizer.

        Args:
          path: of the model.
          pieces: the model.
          tokens: see `added`.
          eos_id: the token that ends a text.
          first: whether only a text's beginning gets the blank that the model puts before it, and
            what follows an added token does not (Llama's tokenizers).
        """
        self.path, self.tokenizer, self.added = path, pieces, dict(tokens)
        self.eos_id, self.unk_id = eos_id, pieces.unk_id()
        self.bos_id = pieces.bos_id() if pieces.bos_id() >= 0 else None
        self.vocab_size = max([pieces.GetPieceSize() - 1, *tokens]) + 1
        self._first = first
        self._ids = {token.content: i for i, token in tokens.items() if not token.special}
        longest = sorted(self._ids, key=len, reverse=True)
        self._cut = re.compile("|".join(map(re.escape, longest)) or r"(?!)")
        self._inner = changed(pieces, add_dummy_prefix=False) if first else pieces
        self._verbatim = changed(pieces, add_dummy_prefix=False, remove_extra_whitespaces=False)

    def without_prefix(self) -> "ExtendedPieces":
        """The same, but no text gets a blank before it."""
        bare = changed(self.tokenizer, add_dummy_prefix=False)
        return ExtendedPieces(self.path, bare, self.added, self.eos_id, self._first)

    def _encode(self, s: str) -> list[int]:
        ids: list[int] = []
        for number, part in enumerate(self._parts(s)):
            if isinstance(part, int):
                ids.append(part)
            elif part:
                model = self._inner if self._first and number else self.tokenizer
                ids += model.EncodeAsIds(part)
        return ids

    def _parts(self, text: str) -> Iterator[str | int]:
        """The text between added tokens, and their ids; a text first, empty or not."""
        start = 0
        for found in self._cut.finditer(text):
            token = self.added[self._ids[found[0]]]
            begin, stop = found.span()
            before, behind = text[start:begin], text[stop:]
            if token.single_word and (_touches(before[-1:]) or _touches(behind[:1])):
                continue
            yield before.rstrip() if token.lstrip else before
            yield self._ids[found[0]]
            start = stop
            if token.rstrip:
                start += len(behind) - len(behind.lstrip())
        yield text[start:]

    def _decode(self, ids: Iterable[int]) -> str:
        text, run = "", []
        for token in (*(int(i) for i in ids), None):
            if token is not None and token not in self.added:
                if 0 <= token < self.tokenizer.GetPieceSize():
                    run.append(token)
                continue
            if run:
                text += (self._verbatim if text else self.tokenizer).DecodeIds(run)
                run = []
            if token is not None and not self.added[token].special:
                text += self.added[token].content
        return text

    def __eq__(self, other: object) -> bool:
        """Whether both read the same model with the same tokens to the same end."""
        return isinstance(other, ExtendedPieces) and all(
            getattr(self, name) == getattr(other, name)
            for name in ("path", "added", "eos_id", "_first")
        )


def _is_text(piece: str | bytes) -> bool:
    """Whether it is a text, which protobuf gives as bytes where it is not UTF-8."""
    return isinstance(piece, str) and piece != "" and "\0" not in piece


def extended(model: Pieces, listed: Mapping[int, Token]) -> Pieces | ExtendedPieces:
    """A model with what its folder's other files add to it, and the end of a text they name.

    Args:
      model: is returned itself where nothing is added that matters.
      listed: id -> token of the folder's tokenizer.json, if there is one.

    Raises:
      UserError: the files contradict each other or the model, or lack the id of a token.
    """
    file, pieces, size = model.path, model.tokenizer, model.vocab_size
    folder = file.parent
    tokens = dict(listed) | added.read(folder)
    for number, token in tokens.items():
        known = _id(pieces, token.content)
        if known != (number if number < size else None):
            gives = f"gives it {known}" if known is not None else "has no such piece there"
            raise UserError(
                f"The tokenizer in {folder} contradicts itself: the added token {token.content!r} "
                f"has the id {number}, but {file.name} of {size} pieces {gives}. Copy all its "
                "files again from one model, tokenizer.json too."
            )
    beyond = {number for number in tokens if number >= size}
    if beyond and (holes := max(beyond) + 1 - size - len(beyond)):
        first = next(i for i in range(size, max(beyond)) if i not in beyond)
        raise UserError(
            f"The tokenizer in {folder} has no token for the id {first}: {file.name} has {size} "
            f"pieces, and what is added to them leaves {holes} ids open below {max(beyond)}. "
            "Copy tokenizer.json too, from the same model."
        )
    eos_id = _end(folder, file, pieces, tokens)
    plain = {i for i, piece in enumerate(_proto(pieces).pieces) if piece.type == piece.NORMAL}
    matter = {
        number: token
        for number, token in tokens.items()
        if number in beyond or (number in plain and not token.special)
    }
    if not matter and eos_id == pieces.eos_id():
        return model
    return ExtendedPieces(file, pieces, matter, eos_id, first=_only_first(folder))


def _end(
    folder: pathlib.Path,
    file: pathlib.Path,
    pieces: sentencepiece.SentencePieceProcessor,
    tokens: Mapping[int, Token],
) -> int:
    """The token that ends a text: that of the settings, else the model's own."""
    for name in added.SETTINGS:
        end = added.word(read_if_there(folder / name).get("eos_token"))
        if end is None:
            continue
        ids = [number for number, token in tokens.items() if token.content == end]
        ids += [] if _id(pieces, end) is None else [_id(pieces, end)]
        if not ids:
            raise UserError(
                f"{folder / name} ends a text by {end!r}, which is no piece of {file.name}, and no "
                "file says its id: copy tokenizer.json too, from the same model."
            )
        return ids[0]
    return pieces.eos_id()


def _id(pieces: sentencepiece.SentencePieceProcessor, content: str) -> int | None:
    """The id of a piece, None if there is none of this content."""
    found = pieces.PieceToId(content)
    return found if pieces.IdToPiece(found) == content else None


def _only_first(folder: pathlib.Path) -> bool:
    """Whether what follows an added token gets no blank, as in Llama's tokenizers since 2023."""
    settings = read_if_there(folder / added.SETTINGS[0])
    return "Llama" in str(settings.get("tokenizer_class")) and settings.get("legacy") is not True


def _touches(letter: str) -> bool:
    """As the tokenizers library: a letter, digit or underscore."""
    return bool(re.match(r"\w", letter))


def _proto(pieces: sentencepiece.SentencePieceProcessor) -> sentencepiece_model_pb2.ModelProto:
    return sentencepiece_model_pb2.ModelProto.FromString(pieces.serialized_model_proto())


def changed(
    pieces: sentencepiece.SentencePieceProcessor, **normalizer: bool
) -> sentencepiece.SentencePieceProcessor:
    """The same model with other settings of its normalizer."""
    model = _proto(pieces)
    for name, value in normalizer.items():
        setattr(model.normalizer_spec, name, value)
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
