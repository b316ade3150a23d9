"""The shipped SentencePiece vocabulary, and how any other one is loaded.

`mini.model` is made by `python -m omni_smola.data.make_vocabulary`: 3,072 unigram pieces,
pad 0, eos 1, unk 2, no bos, bytes for what no piece covers, single digits, and one piece for
each coordinate of the mini suite's boxes.
"""

import os
import pathlib

import seqio

from omni_smola.data.vocabulary import added, hugging_face, pieces
from omni_smola.errors import UserError

SHIPPED = pathlib.Path(__file__).parent / "mini.model"
# The names that Hugging Face's folders give to a SentencePiece model.
_PIECES = ("spiece.model", "tokenizer.model")


def load(path: str | os.PathLike | None = None) -> seqio.Vocabulary:
    """The vocabulary of a file, or of a checkpoint's folder; the shipped one if `path` is None.

    A folder is one of Hugging Face's: its SentencePiece model is taken, spiece.model or
    tokenizer.model, with the tokens that other files add to it; or else its tokenizer.json. Where
    both are there and tokenizer.json adds pieces of text behind those of the model, such as
    PaliGemma's <loc0000>, it is tokenizer.json.

    Returns:
      A vocabulary with pad_id 0.

    Raises:
      UserError: there is no such file, it is not a SentencePiece model or tokenizer.json, or it
        cannot be used here; see `hugging_face.load`.
    """
    file = SHIPPED if path is None else pathlib.Path(path).expanduser()
    if file.is_dir():
        return _of_folder(file)
    if not file.is_file():
        raise UserError(
            f"There is no vocabulary file '{file}'; give the path of a SentencePiece .model file, "
            "the folder of a checkpoint with its tokenizer, or None for the one shipped with "
            "omni_smola."
        )
    if file.name == hugging_face.FILE:
        return hugging_face.load(file)
    return _pieces(file)


def _of_folder(folder: pathlib.Path) -> seqio.Vocabulary:
    complete = folder / hugging_face.FILE
    models = [folder / name for name in _PIECES if (folder / name).is_file()]
    if models:
        model = _pieces(models[0])
        listed = added.of_tokenizer(complete)
        if all(i < model.vocab_size for i, token in listed.items() if not token.special):
            return pieces.extended(model, models[0], listed)
    if complete.is_file():
        return hugging_face.load(complete)
    raise UserError(
        f"The folder {folder} has no tokenizer: copy the checkpoint's {' or '.join(_PIECES)}, or "
        f"{hugging_face.FILE} into it, or give a SentencePiece .model file by "
        "--config.data.vocabulary=PATH."
    )


def _pieces(file: pathlib.Path) -> seqio.SentencePieceVocabulary:
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
    model = vocabulary.tokenizer
    if model.eos_id() < 0 or not (model.is_control(0) or model.is_unknown(0)):
        raise UserError(
            f"The vocabulary file '{file}' has no piece that ends a text, or its piece 0, which "
            "stands for padding here, is one of text: make it with eos_id and pad_id=0."
        )
    return vocabulary
