"""tokenizer.json, the file of Hugging Face's tokenizers."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from omni_smola.data.vocabulary import added
from omni_smola.data.vocabulary.base import PythonTokenizer
from omni_smola.errors import UserError
from omni_smola.json_object import read_if_there

FILE = added.TOKENIZER
# Where the ids of special tokens are, beside the settings that name them.
_MODEL_SETTINGS = ("generation_config.json", "config.json")


class HuggingFaceTokenizer(PythonTokenizer):
    """Pieces of a tokenizer.json; nothing is put around a text, and special tokens in it are text.

    Ids beyond the file's, which a larger embedding can give, decode to nothing.
    """

    bos_id = None  # where a model begins with a token, its frame has it
    unk_id = None

    def __init__(self, path: pathlib.Path, tokenizer: Any, eos_id: int):
        """Takes a `tokenizers.Tokenizer` of the file, and changes its settings."""
        tokenizer.no_padding()
        tokenizer.no_truncation()
        # Else a user's text could hold the end of sequence.
        tokenizer.encode_special_tokens = True
        self.path, self.tokenizer, self.eos_id = path, tokenizer, eos_id
        self.vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def _encode(self, s: str) -> list[int]:
        return self.tokenizer.encode(s, add_special_tokens=False).ids

    def _decode(self, ids: Iterable[int]) -> str:
        known = [i for i in ids if 0 <= i < self.vocab_size]
        return self.tokenizer.decode(known, skip_special_tokens=True)

    def __eq__(self, other: object) -> bool:
        """Whether both read the same file to the same end."""
        return isinstance(other, HuggingFaceTokenizer) and (self.path, self.eos_id) == (
            other.path,
            other.eos_id,
        )


def load(file: pathlib.Path) -> HuggingFaceTokenizer:
    """The tokenizer of a tokenizer.json and of the files beside it that name its special tokens.

    Tokens that the other files add behind those of tokenizer.json are added.

    Raises:
      UserError: the package `tokenizers` is not installed; a file is broken or contradicts another;
        no file names the end of sequence; or id 0, which stands for padding here, is a piece of
        text.
    """
    listed = added.of_tokenizer(file)
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(
            f"{file} is read by the package tokenizers, which is not installed: "
            "pip install 'omni_smola[hf]'."
        ) from error
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing narrower
        raise UserError(f"The file {file} is not a tokenizer ({error}): copy it again.") from error
    _add(file, tokenizer, listed)
    _check_padding(file, tokenizer)
    return HuggingFaceTokenizer(file, tokenizer, _eos_id(file, tokenizer))


def _add(file: pathlib.Path, tokenizer: Any, listed: dict[int, added.Token]) -> None:
    """Adds the tokens that are only in the files beside tokenizer.json, as transformers does."""
    import tokenizers

    for number, token in listed.items():
        if tokenizer.token_to_id(token.content) != number:
            raise UserError(
                f"{file} says that its token {token.content!r} has the id {number}, but its model "
                "gives it another: copy it again."
            )
    for number, token in added.read(file.parent).items():
        known = tokenizer.token_to_id(token.content)
        size = tokenizer.get_vocab_size(with_added_tokens=True)
        if known is None and number == size:
            flags = {name: getattr(token, name) for name in added.FLAGS}
            tokenizer.add_tokens([tokenizers.AddedToken(token.content, **flags)])
        elif known != number:
            here = "does not have it" if known is None else f"gives it {known}"
            raise UserError(
                f"The token {token.content!r} has the id {number} in the files beside {file}, "
                f"which {here} and has {size} tokens: copy all files of the tokenizer again from "
                "one model."
            )


def _check_padding(file: pathlib.Path, tokenizer: Any) -> None:
    """A batch is padded by 0, and 0 is masked wherever it stands."""
    token = tokenizer.id_to_token(0)
    special = tokenizer.get_added_tokens_decoder().get(0)
    settings = (read_if_there(file.parent / name) for name in added.SETTINGS)
    pads = [added.word(fields.get("pad_token")) for fields in settings]
    if token is not None and token not in pads and not (special is not None and special.special):
        raise UserError(
            f"The tokenizer {file} gives the id 0 to {token!r}, a piece of text, but 0 is padding "
            "here: choose a checkpoint whose padding or other special token has the id 0."
        )


def _eos_id(file: pathlib.Path, tokenizer: Any) -> int:
    for name in added.SETTINGS:
        token = added.word(read_if_there(file.parent / name).get("eos_token"))
        if token is not None and tokenizer.token_to_id(token) is not None:
            return tokenizer.token_to_id(token)
    for name in _MODEL_SETTINGS:
        found = read_if_there(file.parent / name).get("eos_token_id")
        found = found[0] if isinstance(found, Sequence) and found else found
        whole = type(found) is int and 0 <= found <= added.LARGEST_ID
        if whole and tokenizer.id_to_token(found) is not None:
            return found
    raise UserError(
        f"Nothing beside {file} says which token ends a text: copy the model's "
        f"{', '.join(added.SETTINGS[:1] + _MODEL_SETTINGS[:1])} too, from the same folder."
    )
