"""Texts to token ids and back, in the frame of a family of models."""

import hashlib
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from omni_smola.data import chat_template, frames
from omni_smola.data.frames import BOS, EOS, IMAGE, Frame, Mark, Part, is_text
from omni_smola.data.vocabulary.segments import Segments
from omni_smola.errors import UserError

# The field of a batch that says where prompts and images are among the ids, see `Framing.spans`.
FIELD = "frame"


class _Head(NamedTuple):
    """What stands before a text.

    Attributes:
      ids: fixed. place: how many of them stand before the image.
      words: text that is tokenized with what follows it.
      first: nothing but a start token stands before `words`.
      length: ids in all, those of `words` alone included.
    """

    ids: list[int]
    place: int
    words: str
    first: bool
    length: int


class _Tail(NamedTuple):
    """What stands behind a text: words that are tokenized with it, also as ids; and fixed ids."""

    words: str
    word_ids: list[int]
    ids: list[int]

    @property
    def length(self) -> int:
        return len(self.word_ids) + len(self.ids)


class Framing:
    """A frame with the ids of a vocabulary.

    Attributes:
      frame: its parts.
      name: what a checkpoint remembers of it, see `load`.
      extra: ids that come on top of the length of a prompt, at most.
      end_id: the token that ends an answer, in training and in decoding.
    """

    def __init__(
        self,
        frame: Frame,
        vocabulary: Any,
        *,
        bos: int | None = None,
        known: Mapping[Part, int] | None = None,
        segments: Segments | None = None,
        name: str = "",
    ):
        """A framing.

        Args:
          frame: the parts.
          vocabulary: see `load`.
          bos: id of the start token; None leaves it out.
          known: ids of parts that a vocabulary without them takes from the model.
          segments: of the vocabulary, where they are at hand.
          name: what a checkpoint remembers of the frame.

        Raises:
          UserError: the vocabulary lacks a special token of the frame.
        """
        self.frame, self.name = frame, name
        self._vocabulary = vocabulary
        self._segments = segments or Segments(vocabulary)
        self._known = dict(known or {}) | {EOS: vocabulary.eos_id, BOS: bos}
        self._heads = [self._head(parts) for parts in (frame.before, frame.seen)]
        self._tail = self._tail_of(frame.after)
        self._end = self._tail_of(frame.end)
        self.end_id = self._end.ids[-1]
        longest = max(head.length for head in self._heads)
        self.extra = longest + self._tail.length - frame.ends_prompt

    def prompt(self, text: str, length: int | None = None, *, image: bool) -> list[int]:
        """The ids of a prompt in its frame, without the image.

        Args:
          text: the prompt.
          length: ids at most; a longer prompt's own are cut, never the frame's. None cuts nothing.
          image: whether the example has one.
        """
        if self.frame.strip:
            text = text.strip()
        return self._framed(self._heads[image], text, self._tail, length)

    def answer(self, text: str, length: int | None = None) -> list[int]:
        """The ids of an answer and of what ends it; a longer one's own ids are cut to `length`."""
        if self.frame.strip_answer:
            text = text.strip()
        words = "".join(self.frame.answer)
        head = _Head([], 0, words, not self.frame.joined, 0)
        return self._framed(head, text, self._end, length)

    def text(self, ids: Sequence[int]) -> str:
        """The answer in generated ids, which end before `end_id`."""
        text = self._vocabulary.decode([int(i) for i in ids])
        before, behind = "".join(self.frame.answer), self._end.words
        if behind:
            text = text.removesuffix(behind)
        return text.removeprefix(before) if before else text

    def spans(self, prompt: Sequence[int], *, image: bool) -> list[int]:
        """Where what is among the ids of a prompt.

        Returns:
          The number of ids before the image (0 without one), before the prompt's own, and before
          those of the frame that follow them; an EOS directly behind a prompt counts as its own.
        """
        head = self._heads[image]
        end = len(prompt) - self._tail.length + self.frame.ends_prompt
        return [head.place if image else 0, min(head.length, end), end]

    def width(self, prompt_length: int) -> int:
        """Ids of a row of prompts of at most `prompt_length` tokens, and their frame."""
        return prompt_length + self.extra

    def check_lengths(self, target_length: int) -> None:
        """Raises UserError for answers so short that only what ends them would remain."""
        if target_length <= self._end.length:
            raise UserError(
                f"config.data.target_length is {target_length}, but the end of an answer alone is "
                f"{self._end.length} tokens of this model: set --config.data.target_length=16 or "
                "more."
            )

    def _framed(self, head: _Head, text: str, tail: _Tail, length: int | None) -> list[int]:
        encode = self._segments.encode
        own = encode(head.words + text + tail.words, first=head.first)
        room = None if length is None else length - len(head.ids) - len(tail.ids)
        if room is not None and len(own) > room:
            kept = max(room - len(tail.word_ids), 0)
            own = encode(head.words + text, first=head.first)[:kept] + tail.word_ids
        return [*head.ids, *own, *tail.ids]

    def _head(self, parts: Iterable[Part]) -> _Head:
        ids: list[int] = []
        place, words, first = 0, "", True
        for part in parts:
            if is_text(part):
                words += part
                continue
            if words:
                ids += self._segments.encode(words, first=first)
                words, first = "", False
            if part is IMAGE:
                place = len(ids)
                continue
            ids += self._ids(part)
            # A tokenizer puts its start token before a text, which begins behind it.
            first = first and part is BOS
        return _Head(ids, place, words, first, len(ids) + len(self._encoded(words, first)))

    def _tail_of(self, parts: Sequence[Part]) -> _Tail:
        words = parts[0] if parts and is_text(parts[0]) else ""
        ids: list[int] = []
        for part in parts[bool(words) :]:
            ids += self._encoded(part, False) if is_text(part) else self._ids(part)
        return _Tail(words, self._encoded(words, False), ids)

    def _encoded(self, words: str, first: bool) -> list[int]:
        return self._segments.encode(words, first=first) if words else []

    def _ids(self, part: Part) -> list[int]:
        if isinstance(part, int):
            return [part]
        if isinstance(part, Mark):
            return [] if self._known[part] is None else [self._known[part]]
        found = self._segments.specials.get(part, self._known.get(part))
        if found is None:
            raise UserError(
                f"The frame of the prompts needs the token {part}, which the vocabulary does not "
                "have: choose the frame that the model was trained with (--config.data.frame=...), "
                "or the vocabulary of its own folder (--config.data.vocabulary=...)."
            )
        return [found]


def example(
    framing: Framing,
    prompt: str,
    answer: str,
    *,
    image: bool,
    prompt_length: int | None,
    target_length: int | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An example's prompt (p,), target (t,) and spans (3,), all int32, see `Framing`."""
    ids = framing.prompt(prompt, prompt_length, image=image)
    target = framing.answer(answer, target_length)
    spans = framing.spans(ids, image=image)
    return tuple(np.array(x, np.int32) for x in (ids, target, spans))


def load(
    name: str,
    vocabulary: Any,
    family: str = "t5",
    ids: Mapping[str, int] | None = None,
    folder: pathlib.Path | None = None,
) -> Framing:
    """The framing of a run.

    Its `name` is that of the frame, see `frames.known_as`, or "chat_template" and a hash of what
    the template writes.

    Args:
      name: one of `frames.NAMES`. `auto` is the chat template of a language model's folder if there
        is one, and otherwise what the family was trained with.
      vocabulary: a seqio.Vocabulary, or a tokenizer of `omni_smola.data.tokenizer`.
      family: a key of `frames.FRAMES`.
      ids: "bos", and special tokens, with the model's ids of them.
      folder: of the public checkpoint, if the backbone is one.

    Raises:
      UserError: no such frame; a chat template that fails; a token that the vocabulary lacks.
    """
    frames.check_name(name)
    segments = Segments(vocabulary)
    ids = dict(ids or {})
    bos = ids.pop("bos", None)
    language = family not in ("t5", "t5gemma2", "paligemma")
    template = None
    if name == frames.AUTO and language and folder is not None and folder.is_dir():
        template = chat_template.find(folder)
    if template is not None:
        frame = chat_template.read(template, segments, folder)
        known_as = f"chat_template {hashlib.sha256(repr(frame).encode()).hexdigest()[:8]}"
    else:
        frame, known_as = frames.named(name, family), frames.known_as(name, family)
    if language and name != frames.OLD and segments.begins is False:
        bos = None
    return Framing(frame, vocabulary, bos=bos, known=ids, segments=segments, name=known_as)
