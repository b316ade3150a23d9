"""Token ids of raw instructions, as a sentence encoder reads them.

WordPiece by the package `tokenizers`, which also runs inside transformers' BertTokenizer. Nothing
is downloaded: the vocabulary is that of a local Hugging Face folder.
"""

import json
import pathlib
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import numpy as np

from omni_smola.errors import UserError

LENGTH = 64
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class InstructionTokenizer:
    """Texts to [CLS] ... [SEP] of one length.

    Attributes:
      length: ids per text, the two special ones included. vocab_size: ids that may occur.
    """

    def __init__(self, tokenizer: Any, length: int = LENGTH):
        """tokenizer: a tokenizers.Tokenizer, which is set to cut at `length` and not to pad."""
        if length < 3:
            raise UserError(
                f"The instruction's length is {length}; it must be 3 or more, as [CLS] and [SEP] "
                "take two tokens."
            )
        tokenizer.no_padding()
        tokenizer.enable_truncation(length)
        self.length = length
        self.vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self._pad = tokenizer.token_to_id("[PAD]")
        self._tokenizer = tokenizer

    def __call__(self, texts: np.ndarray | Iterable[str | bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of a batch of texts.

        Args:
          texts: (b,) of str, or of bytes in UTF-8, as TensorFlow hands them out. A text that is too
            long is cut; [SEP] stays.

        Returns:
          tokens (b, length) int32 and mask (b, length) bool, False at the padding.
        """
        # One by one: encode_batch starts threads, and warns whoever forks afterwards.
        rows = [self._tokenizer.encode(_text(text)).ids for text in texts]
        tokens = np.full((len(rows), self.length), self._pad, np.int32)
        mask = np.zeros(tokens.shape, bool)
        for i, ids in enumerate(rows):
            tokens[i, : len(ids)] = ids
            mask[i, : len(ids)] = True
        return tokens, mask


def fields(
    tokenizer: InstructionTokenizer, texts: Sequence[str | bytes], rows: int = 0
) -> dict[str, np.ndarray]:
    """What a batch has for a sentence encoder; at least `rows` rows, the last of empty texts."""
    tokens, mask = tokenizer([*texts, *[""] * (rows - len(texts))])
    return {"instruction": tokens, "instruction_mask": mask}


def load(folder: str | PathLike, length: int = LENGTH) -> InstructionTokenizer:
    """The tokenizer of a sentence encoder's folder: its tokenizer.json, or else its vocab.txt.

    A tokenizer_config.json beside vocab.txt may set do_lower_case (else True), strip_accents (else
    as do_lower_case) and tokenize_chinese_chars (else True).

    Raises:
      UserError: the package `tokenizers` is not installed, neither file is there or one is broken,
        it does not put a text between [CLS] and [SEP], the model of config.json embeds fewer ids
        than it gives, or `length` is below 3.
    """
    folder = pathlib.Path(folder).expanduser()
    tokenizers = _tokenizers()
    ready, words = folder / "tokenizer.json", folder / "vocab.txt"
    file = ready if ready.is_file() else words
    if not file.is_file():
        raise UserError(
            f"The folder {folder} has neither tokenizer.json nor vocab.txt: give the whole local "
            "folder of the sentence encoder."
        )
    options = _fields(folder / "tokenizer_config.json")
    try:
        tokenizer = (
            tokenizers.Tokenizer.from_file(str(ready))
            if file is ready
            else _from_words(tokenizers, words, options)
        )
    except Exception as error:  # tokenizers raises nothing narrower
        raise UserError(f"The file {file} is not a tokenizer ({error}): copy it again.") from error
    missing = [token for token in _SPECIAL[:4] if tokenizer.token_to_id(token) is None]
    frame = [tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]")]
    tokenizer.no_padding()
    if missing or tokenizer.encode("").ids != frame:
        raise UserError(
            f"The file {file} is not the tokenizer of a BERT: it "
            f"{'lacks ' + ', '.join(missing) if missing else 'does not give [CLS] ... [SEP]'}. "
            "Choose the folder of a BERT."
        )
    result = InstructionTokenizer(tokenizer, length)
    _check_size(folder, result.vocab_size)
    return result


def _from_words(tokenizers: Any, file: pathlib.Path, options: dict[str, Any]) -> Any:
    """WordPiece over the lines of vocab.txt, with the options of tokenizer_config.json."""
    with file.open(encoding="utf-8") as lines:
        vocabulary = {line.rstrip("\n"): i for i, line in enumerate(lines)}
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)
    )
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=options.get("tokenize_chinese_chars", True),
        strip_accents=options.get("strip_accents"),
        lowercase=options.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([token for token in _SPECIAL if token in vocabulary])
    if "[CLS]" in vocabulary and "[SEP]" in vocabulary:
        tokenizer.post_processor = tokenizers.processors.BertProcessing(
            ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
        )
    return tokenizer


def _check_size(folder: pathlib.Path, size: int) -> None:
    """An id beyond the table of embeddings would silently read another row."""
    embedded = _fields(folder / "config.json").get("vocab_size", size)
    if size > embedded:
        raise UserError(
            f"The tokenizer of {folder} gives {size} ids, but the model of its config.json embeds "
            f"{embedded}: copy all files of the folder from the same model."
        )


def _fields(file: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is no file."""
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"The file {file} is not JSON ({error}): copy it again.") from error


def _text(text: str | bytes) -> str:
    """Valid Unicode: half of a surrogate pair, or bytes that are not UTF-8, are replaced."""
    encoded = text if isinstance(text, bytes) else str(text).encode(errors="replace")
    return encoded.decode(errors="replace")


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(
            "The instruction of a sentence encoder is read by the package tokenizers, which is not "
            "installed: pip install 'omni_smola[minilm]'."
        ) from error
    return tokenizers
