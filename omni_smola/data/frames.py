"""What stands around a prompt and an answer, as each family of models was trained with it.

A frame is the same for training, evaluation and prediction; models add no token of their own. The
families' own processors and chat templates are the measure (`tests/parity/test_prompts.py`).
"""

import dataclasses
import enum
from collections.abc import Iterator, Mapping

from omni_smola.errors import UserError


class Mark(enum.Enum):
    """A part of a frame whose id the model or its vocabulary knows."""

    BOS = "bos"  # the start token that a tokenizer puts before a text
    EOS = "eos"
    IMAGE = "image"  # where the visual tokens stand; no id of the prompt


BOS, EOS, IMAGE = Mark


class Special(str):
    """A special token by its name, such as <|im_start|>."""


Part = Mark | Special | int | str  # an int is a token's id, a plain str is text


@dataclasses.dataclass(frozen=True)
class Frame:
    """The parts around a prompt, and around an answer.

    Text beside the prompt is tokenized together with it, as processors do.

    Attributes:
      before: stands before a prompt without an image.
      seen: stands before a prompt with an image; has IMAGE once.
      after: stands behind the prompt.
      answer: stands before the answer, and is trained with it.
      end: stands behind the answer; the last part is the token that ends it.
      strip: blanks around the prompt are dropped.
      strip_answer: the same of the answer.
      joined: the answer continues the text of the prompt; otherwise it is a text of its own, which
        a tokenizer may begin with a blank.
    """

    before: tuple[Part, ...] = ()
    seen: tuple[Part, ...] = (IMAGE,)
    after: tuple[Part, ...] = ()
    answer: tuple[str, ...] = ()
    end: tuple[Part, ...] = (EOS,)
    strip: bool = False
    strip_answer: bool = False
    joined: bool = False

    @property
    def bare(self) -> bool:
        """Nothing stands before the prompt but an image: models need no `frame` in a batch."""
        return not self.before and self.seen == (IMAGE,)

    def estimate(self) -> int:
        """About how many ids come on top of a prompt's own, with four characters of text to one."""
        parts = [*max(self.before, self.seen, key=len), *self.after[self.ends_prompt :]]
        return sum(-(-len(part) // 4) if is_text(part) else part is not IMAGE for part in parts)

    @property
    def ends_prompt(self) -> bool:
        """EOS ends the prompt, and is counted as one of its tokens."""
        return self.after[:1] == (EOS,)


def _chat(before: tuple[Part, ...], after: tuple[Part, ...], **fields: object) -> Frame:
    """One turn of a user, with the image on a line of its own before the user's words."""
    return Frame(before, (*before, IMAGE, "\n"), after, joined=True, **fields)


_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER: "
)
_TURN = Special("<start_of_turn>"), Special("<end_of_turn>")
_TALK = Special("<|im_start|>"), Special("<|im_end|>")

# What a family's models were trained with, and what config.data.frame can name.
FRAMES = {
    # T5 1.1, Flan-T5, mT5, UL2 and PaLI: the tokenizer ends every text with EOS.
    "t5": Frame(after=(EOS,)),
    # A language model that has seen text only, such as Llama 2 or Gemma.
    "plain": Frame((BOS,), (BOS, IMAGE)),
    "newline": Frame((BOS,), (BOS, IMAGE), ("\n",)),
    "paligemma": Frame((BOS,), (IMAGE, BOS), ("\n",)),
    "t5gemma2": Frame(
        (BOS,),
        (
            BOS,
            "\n\n",
            Special("<start_of_image>"),
            IMAGE,
            Special("<end_of_image>"),
            "\n\n",
        ),
    ),
    "chatml": _chat((_TALK[0], "user\n"), (_TALK[1], "\n", _TALK[0], "assistant\n"), end=_TALK[1:]),
    "gemma": _chat(
        (BOS, _TURN[0], "user\n"),
        (_TURN[1], "\n", _TURN[0], "model\n"),
        end=_TURN[1:],
        strip=True,
        strip_answer=True,
    ),
    "llama2": _chat(
        (Special("<s>"), "[INST] "),
        (" [/INST]",),
        answer=(" ",),
        end=(" ", EOS),
        strip=True,
        strip_answer=True,
    ),
    # Vicuna 1.1 and 1.5, as FastChat writes one turn.
    "vicuna": _chat((BOS, _VICUNA), (" ASSISTANT:",), answer=(" ",)),
    # TinyLlama-Chat; it was trained without a start token.
    "zephyr": _chat(("<|user|>\n",), (EOS, "\n<|assistant|>\n")),
}
# config.data.frame may also be: auto, the family's own; or eos, that with EOS behind the prompt, as
# all prompts were made before there were frames.
AUTO, OLD = "auto", "eos"
NAMES = (AUTO, *FRAMES, OLD)


def check_name(name: str) -> None:
    """Raises UserError for a frame that there is not."""
    if name not in NAMES:
        raise UserError(
            f"There is no frame of prompts called {name!r}: choose one of {', '.join(NAMES)} "
            "(--config.data.frame=...); auto is what the backbone was trained with."
        )


def named(name: str, family: str) -> Frame:
    """A frame of the table, or the old one of a family; `auto` is the family's own.

    Args:
      name: one of NAMES.
      family: a key of FRAMES, what the backbone is prompted with unless told otherwise.

    Raises:
      UserError: no such name.
    """
    check_name(name)
    frame = FRAMES[family if name in (AUTO, OLD) else name]
    if name != OLD or frame.ends_prompt:
        return frame
    return dataclasses.replace(frame, after=(EOS, *frame.after))


def known_as(name: str, family: str) -> str:
    """What a checkpoint calls the frame `named(name, family)`: one name for equal frames.

    It is "eos" wherever the frame is the one that prompts had before there were frames.
    """
    return OLD if named(name, family) == named(OLD, family) else family if name == AUTO else name


def divided(text: str, specials: Mapping[str, object]) -> Iterator[Part]:
    """A text as parts: special tokens, the longest first, and what stands between them."""
    start = place = 0
    longest = sorted(specials, key=len, reverse=True)
    while place < len(text):
        found = next((name for name in longest if name and text.startswith(name, place)), None)
        if found is None:
            place += 1
            continue
        if start < place:
            yield text[start:place]
        yield Special(found)
        start = place = place + len(found)
    if start < len(text):
        yield text[start:]


def is_text(part: Part) -> bool:
    """Whether a part is text, which is tokenized with its neighbours."""
    return isinstance(part, str) and not isinstance(part, Special)
