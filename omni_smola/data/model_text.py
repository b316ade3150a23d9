"""Texts of a loaded model: its tokenizer, in the frame that it was trained with."""

import functools
from typing import Any

from flax import nnx

from omni_smola.data import framing
from omni_smola.data.framing import Framing
from omni_smola.data.tokenizer import Tokenizer, load_tokenizer
from omni_smola.errors import UserError
from omni_smola.models.origin import Origin, origin

_PLAIN = "t5"  # the family of a model that nothing is known of: the end of a text behind a prompt


def framing_of(model: nnx.Module, tokenizer: Tokenizer | None = None) -> Framing:
    """How a model's prompts and answers become ids, the same as on the command line.

    Args:
      model: of `load_backbone`; any other needs `tokenizer`, and its prompts end as those of a T5.
      tokenizer: in place of the one beside the model's weights.

    Raises:
      UserError: no tokenizer is known, it cannot be read, it has more pieces than the model embeds,
        or it lacks a token of the frame.
    """
    known = origin(model)
    if tokenizer is not None:
        return _framing(tokenizer, known)
    if known is None or not known.tokenizer:
        raise UserError(
            "No tokenizer belongs to this model: pass tokenizer=load_tokenizer(PATH), with the "
            "SentencePiece .model file that the model was trained with."
        )
    return _own(known)


@functools.lru_cache(maxsize=8)
def _own(known: Origin) -> Framing:
    """The framing of a model with its own tokenizer, which takes seconds to read."""
    tokenizer = load_tokenizer(known.tokenizer)
    if tokenizer.vocab_size > known.vocabulary:
        raise UserError(
            f"The tokenizer {known.tokenizer} has {tokenizer.vocab_size} pieces, but the backbone "
            f"{known.name} embeds {known.vocabulary}: pass tokenizer=load_tokenizer(PATH) with the "
            "one that the backbone was trained with."
        )
    return _framing(tokenizer, known)


def _framing(tokenizer: Any, known: Origin | None) -> Framing:
    if known is None:
        return framing.load(framing.frames.AUTO, tokenizer, _PLAIN)
    return framing.load(known.frame, tokenizer, known.family, dict(known.frame_ids))
