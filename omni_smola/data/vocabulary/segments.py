"""A text between special tokens as ids, the way its family's own tokenizer reads it there.

A tokenizer may put a blank before a text. Whether it also does so behind a special token differs:
transformers' LlamaTokenizer does only with `legacy` in tokenizer_config.json, and adds none where
the text begins with a blank already.
"""

import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

from omni_smola.json_object import read_if_there

_SETTINGS = "tokenizer_config.json"


class Segments:
    """Encodes pieces of a text that special tokens divide.

    Attributes:
      specials: special token -> its id. Spelled out in a text, they are text.
      words: name -> special token of tokenizer_config.json: bos_token, eos_token and so on.
      begins: whether the tokenizer puts a start token before a text; None where nothing says so.
    """

    def __init__(self, vocabulary: Any):
        """vocabulary: a seqio.Vocabulary, or a tokenizer of `load_tokenizer`."""
        self._whole: Callable[[str], list[int]] = vocabulary.encode
        self._bare = self._whole
        self._blank_counts = self._prefix_inside = False
        self.specials: dict[str, int] = {}
        self.words: dict[str, str] = {}
        self.begins: bool | None = None
        tokenizer = getattr(vocabulary, "tokenizer", None)
        if hasattr(tokenizer, "get_added_tokens_decoder"):
            self._of_hugging_face(vocabulary)
        elif hasattr(tokenizer, "id_to_piece"):
            self._of_sentencepiece(vocabulary)

    def encode(self, text: str, *, first: bool) -> list[int]:
        """The ids of a text.

        Args:
          text: what stands between two special tokens; special tokens in it are spelled out.
          first: nothing but a start token stands before it.
        """
        text = text.encode("utf-8", "replace").decode("utf-8")  # half of a surrogate pair
        prefix = first or self._prefix_inside
        if self._blank_counts and text.startswith((" ", "▁")):
            prefix = False
        return list((self._whole if prefix else self._bare)(text))

    def _of_hugging_face(self, vocabulary: Any) -> None:
        tokenizer = vocabulary.tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self.specials = {
            token.content: i
            for i, token in added.items()
            if token.special or re.fullmatch("<.+>", token.content)
        }
        settings = self._read_settings(pathlib.Path(vocabulary.path).parent)
        llama = str(settings.get("tokenizer_class", "")).startswith("Llama")
        described = json.loads(tokenizer.to_str())
        if self.begins is None:
            self.begins = bool(tokenizer.encode("", add_special_tokens=True).ids)
        bare = _without_prefix(described, everywhere=llama)
        if llama:
            self._blank_counts = bare != described
            self._prefix_inside = bool(settings.get("legacy", False))
        if bare != described:
            self._bare = _spelling(type(tokenizer).from_str(json.dumps(bare)))

    def _of_sentencepiece(self, vocabulary: Any) -> None:
        from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

        proto = vocabulary.tokenizer.serialized_model_proto()
        model = sentencepiece_model_pb2.ModelProto.FromString(proto)
        kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
        self.specials = {
            piece.piece: i
            for i, piece in enumerate(model.pieces)
            if piece.type == kinds.CONTROL
            # Gemma's marks of a turn; its newlines, defined alike, are text.
            or (piece.type == kinds.USER_DEFINED and re.fullmatch("<.+>", piece.piece))
        }
        python = getattr(vocabulary, "python", vocabulary)
        added = getattr(python, "added", {})
        self.specials |= {
            token.content: i
            for i, token in added.items()
            if token.special or re.fullmatch("<.+>", token.content)
        }
        rules = model.normalizer_spec
        # Llama's models; those of T5 fold blanks, and add one wherever a text begins.
        if rules.add_dummy_prefix and not rules.remove_extra_whitespaces:
            rules.add_dummy_prefix = False
            bare = SentencePieceProcessor(model_proto=model.SerializeToString())
            self._bare, self._blank_counts = bare.encode, True
            if added:
                self._bare = python.without_prefix().encode
        file = getattr(vocabulary, "path", None) or vocabulary.sentencepiece_model_file
        settings = self._read_settings(pathlib.Path(file).parent)
        self._prefix_inside = bool(settings.get("legacy", False))

    def _read_settings(self, folder: pathlib.Path) -> dict[str, Any]:
        settings = read_if_there(folder / _SETTINGS)
        for name, token in (read_if_there(folder / "special_tokens_map.json") | settings).items():
            word = token.get("content") if isinstance(token, dict) else token
            if name.endswith("_token") and isinstance(word, str):
                self.words[name] = word
        if isinstance(settings.get("add_bos_token"), bool):
            self.begins = settings["add_bos_token"]
        return settings


def _spelling(tokenizer: Any) -> Callable[[str], list[int]]:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def _without_prefix(described: Any, *, everywhere: bool) -> Any:
    """A tokenizer.json whose text gets no blank before it.

    Args:
      described: its content. everywhere: not only where the tokenizer adds one before the first
        text alone.
    """
    if isinstance(described, list):
        return [_without_prefix(part, everywhere=everywhere) for part in described]
    if not isinstance(described, dict):
        return described
    kind, scheme = described.get("type"), described.get("prepend_scheme")
    if everywhere and kind == "Prepend":
        return described | {"prepend": ""}
    if kind == "Metaspace" and (scheme == "first" or (everywhere and scheme == "always")):
        return described | {"prepend_scheme": "never"}
    steps = ("normalizer", "pre_tokenizer", "normalizers", "pretokenizers")
    changed = {
        name: _without_prefix(described[name], everywhere=everywhere)
        for name in steps
        if name in described
    }
    return described | changed
