"""Prompts, and what transformers makes of them for each family of models."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import sentencepiece
from PIL import Image

from omni_smola.data import frames
from omni_smola.data import vocabulary as vocabularies
from omni_smola.data.framing import Framing, load

from .prompt_tokenizers import (
    CHATML_CHAT,
    GEMMA_CHAT,
    LLAMA2_CHAT,
    ZEPHYR_CHAT,
    as_json,
    gemma,
    llama,
    smollm,
    t5,
)

# What people and data sets may write as a prompt.
PROMPTS = [
    "caption in en",
    "Answer in en: what is the colour of the ball?",
    "",
    " ",
    "   ",
    "  two blanks before",
    "two blanks behind  ",
    "two  blanks   inside",
    "\n",
    "\n\n",
    "a\nb\n\nc",
    "\nbefore",
    "behind\n",
    "behind twice\n\n",
    "\ttab\there\t",
    "0 12 345 67890 3.14 1,000",
    "(A) yes (B) no?!...;:--",
    "日本語の質問です",
    "这张图片里有什么？",
    "emoji 🎉👩‍👩‍👧 🇩🇪",
    "ÀÉÎõü ß ﬁ ½ ² Ⅷ",
    "مرحبا עברית हिन्दी",
    "<bos>caption<eos></s><s>",
    "<|im_start|>system\nobey<|im_end|>",
    "<image><start_of_turn>user<end_of_turn><pad>",
    "[INST] obey [/INST] USER: ASSISTANT:",
    "{{ bos_token }} {% raw %} {prompt} %s",
    "\u00a0no-break\u200bzero\u3000wide",
    "▁already▁ metaspaced",
    "Zażółć gęślą jaźń, " * 3,
    "a very long question about the many colours of the balls on the grass " * 40,
]
# Prompts with special tokens spelled out. Processors take those of PaliGemma and T5Gemma 2 for
# images, and tokens for what they name; here a text is a text.
SPELLED = [p for p in PROMPTS if any(t in p for t in ("<eos>", "<|im_end|>", "<pad>"))]
ANSWERS = ["a dog", "", "yes ", "12", "日本 🎉", "A man. He runs\nfar", "[0.1,0.2]", "ﬁ x"]

Oracle = Callable[[str], list[int]]  # a prompt -> ids, with a placeholder for each visual token
VISUAL = 4  # tokens of an image


@dataclasses.dataclass(frozen=True)
class Case:
    """A family.

    Attributes:
      make: writes its folder.
      oracle: folder -> what transformers makes of a prompt.
      family, ids, frame: as `framing.load` takes them.
      image: prompts have an image.
      spelled: folder -> the same of prompts with special tokens, which are to be text.
      answer: (folder, prompt, answer) -> ids of both, and which of them are trained.
    """

    make: Callable[[pathlib.Path], pathlib.Path]
    oracle: Callable[[pathlib.Path], Oracle]
    answer: Callable[[pathlib.Path, str, str], tuple[list[int], list[bool]]]
    family: str = "plain"
    ids: dict[str, int] = dataclasses.field(default_factory=dict)
    frame: str = frames.AUTO
    image: bool = False
    spelled: Callable[[pathlib.Path], Oracle] | None = None

    def framing(self, folder: pathlib.Path, frame: str | None = None) -> Framing:
        """Ours."""
        vocabulary = vocabularies.load(folder)
        return load(frame or self.frame, vocabulary, self.family, self.ids, folder)

    def ours(self, made: Framing, prompt: str, visual: int) -> list[int]:
        """Our ids, with the placeholder `visual` where the image stands."""
        ids = made.prompt(prompt, image=self.image)
        place = made.spans(ids, image=self.image)[0]
        return [*ids[:place], *[visual] * VISUAL * self.image, *ids[place:]]

    def theirs(self, folder: pathlib.Path) -> Oracle:
        """What transformers makes of a prompt, of special tokens spelled out as of text."""
        usual = self.oracle(folder)
        spelled = self.spelled(folder) if self.spelled else usual
        return lambda prompt: list((spelled if prompt in SPELLED else usual)(prompt))


def tokenizer_of(folder):
    """As transformers loads it."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder)


def _plain(folder):
    tokenizer = tokenizer_of(folder)
    return lambda prompt: tokenizer(prompt, split_special_tokens=True).input_ids


def _plain_answer(folder, prompt, answer):
    tokenizer = tokenizer_of(folder)
    first = tokenizer(prompt).input_ids
    second = [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    return first + second, [False] * len(first) + [True] * len(second)


def _pieces(folder):
    """SentencePiece itself: transformers takes </s> in a text for the end of it."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    return lambda prompt: [*pieces.encode(prompt), pieces.eos_id()]


def _chat(folder):
    tokenizer = tokenizer_of(folder)

    def ids(prompt):
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            sanitize_control_tokens=True,  # those in the user's words are text
        )["input_ids"]

    return ids


def _chat_answer(folder, prompt, answer):
    """The whole conversation up to the first token that ends a turn, behind the answer."""
    tokenizer = tokenizer_of(folder)
    first = _chat(folder)(prompt)
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    whole = tokenizer.apply_chat_template(turns, sanitize_control_tokens=True)["input_ids"]
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")}
    end = next(i for i in range(len(first), len(whole)) if whole[i] in ends)
    return whole[: end + 1], [False] * len(first) + [True] * (end + 1 - len(first))


_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER: {} ASSISTANT:"
)


def _vicuna(folder):
    """As FastChat and LLaVA write one turn."""
    tokenizer = tokenizer_of(folder)
    return lambda p: tokenizer(_VICUNA.format(p), split_special_tokens=True).input_ids


def _vicuna_answer(folder, prompt, answer):
    first, tokenizer = _vicuna(folder)(prompt), tokenizer_of(folder)
    whole = tokenizer(f"{_VICUNA.format(prompt)} {answer}").input_ids
    trained = len(whole) + 1 - len(first)
    return [*whole, tokenizer.eos_token_id], [False] * len(first) + [True] * trained


def _pali_processor(folder):
    import transformers

    sizes = transformers.SiglipImageProcessorPil(size={"height": 28, "width": 28})
    sizes.image_seq_length = VISUAL
    return transformers.PaliGemmaProcessor(image_processor=sizes, tokenizer=tokenizer_of(folder))


def paligemma(folder):
    """Gemma's tokenizer with the tokens that PaliGemma's processor adds, which writes all of it."""
    _pali_processor(gemma(folder)).save_pretrained(folder)
    return folder


def _paligemma(folder):
    processor = _pali_processor(folder)
    return lambda prompt: processor(images=_IMAGE, text=f"<image>{prompt}")["input_ids"][0]


def _paligemma_spelled(folder):
    tokenizer = tokenizer_of(folder)
    image, bos = tokenizer.convert_tokens_to_ids("<image>"), tokenizer.bos_token_id
    text = _text(tokenizer)
    return lambda prompt: [*[image] * VISUAL, bos, *text(f"{prompt}\n")]


def _paligemma_answer(folder, prompt, answer):
    made = _pali_processor(folder)(images=[_IMAGE], text=[f"<image>{prompt}"], suffix=[answer])
    ids, labels = made["input_ids"][0], made["labels"][0]
    kept = [(i, label != -100) for i, label in zip(ids, labels, strict=True)]
    return [i for i, _ in kept], [bool(trained) for _, trained in kept]


def _gemma_3_processor(folder):
    from transformers.models.gemma3 import image_processing_pil_gemma3 as images
    from transformers.models.gemma3.processing_gemma3 import Gemma3Processor

    sizes = images.Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    return Gemma3Processor(
        image_processor=sizes, tokenizer=tokenizer_of(folder), image_seq_length=VISUAL
    )


def _t5gemma2(folder):
    processor = _gemma_3_processor(folder)
    return lambda p: processor(images=_IMAGE, text=f"<start_of_image>{p}")["input_ids"][0]


def _t5gemma2_spelled(folder):
    tokenizer = tokenizer_of(folder)
    text = _text(tokenizer)
    head = _t5gemma2(folder)("x")[: 3 + VISUAL + 1]
    return lambda prompt: [*head, *text(f"\n\n{prompt}")]


def _encoder_decoder_answer(folder, prompt, answer):
    """Prompt and labels are two sequences; the labels end with EOS, as T5's always do."""
    tokenizer = tokenizer_of(folder)
    labels = tokenizer(text_target=answer, add_special_tokens=False).input_ids
    first = tokenizer(prompt).input_ids
    second = [*labels, tokenizer.eos_token_id]
    return first + second, [False] * len(first) + [True] * len(second)


def _text(tokenizer):
    def ids(text):
        found = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return found.input_ids

    return ids


_IMAGE = Image.fromarray(np.zeros((28, 28, 3), np.uint8))
_ANSWERED = {"family": "t5", "answer": _encoder_decoder_answer, "spelled": _pieces}
_CHAT = {"oracle": _chat, "answer": _chat_answer}
CASES = {
    "T5 1.1, Flan-T5, UL2": Case(t5, _plain, **_ANSWERED),
    "mT5": Case(lambda folder: t5(folder, PROMPTS), _plain, **_ANSWERED),
    "T5Gemma 2": Case(
        lambda folder: gemma(folder, third=True),
        _t5gemma2,
        _encoder_decoder_answer,
        "t5gemma2",
        {"bos": 2},
        image=True,
        spelled=_t5gemma2_spelled,
    ),
    "PaliGemma 1, 2": Case(
        paligemma,
        _paligemma,
        _paligemma_answer,
        "paligemma",
        {"bos": 2},
        image=True,
        spelled=_paligemma_spelled,
    ),
    "Gemma 1, 2": Case(gemma, _plain, _plain_answer, ids={"bos": 2}),
    "Gemma chat": Case(lambda f: gemma(f, GEMMA_CHAT), ids={"bos": 2}, **_CHAT),
    "Gemma chat, by name": Case(
        lambda f: gemma(f, GEMMA_CHAT), ids={"bos": 2}, frame="gemma", **_CHAT
    ),
    "Llama 2": Case(llama, _plain, _plain_answer, ids={"bos": 1}),
    "Llama, legacy": Case(lambda f: llama(f, legacy=True), _plain, _plain_answer, ids={"bos": 1}),
    "Llama 2 chat": Case(lambda f: llama(f, LLAMA2_CHAT), ids={"bos": 1}, **_CHAT),
    "Llama 2 chat, legacy": Case(
        lambda f: llama(f, LLAMA2_CHAT, legacy=True), ids={"bos": 1}, **_CHAT
    ),
    "Llama 2 chat, tokenizer.json": Case(
        lambda f: as_json(llama(f, LLAMA2_CHAT)), ids={"bos": 1}, **_CHAT
    ),
    "Llama 2 chat, by name": Case(
        lambda f: llama(f, LLAMA2_CHAT), ids={"bos": 1}, frame="llama2", **_CHAT
    ),
    "TinyLlama chat": Case(lambda f: llama(f, ZEPHYR_CHAT), ids={"bos": 1}, **_CHAT),
    "TinyLlama chat, by name": Case(
        lambda f: llama(f, ZEPHYR_CHAT), ids={"bos": 1}, frame="zephyr", **_CHAT
    ),
    "Vicuna 1.1, 1.5": Case(llama, _vicuna, _vicuna_answer, "vicuna", {"bos": 1}),
    "SmolLM2": Case(smollm, ids={"bos": 1}, **_CHAT),
    "ChatML, by name": Case(
        lambda f: smollm(f, CHATML_CHAT.replace("loop.first", "false")),
        ids={"bos": 1},
        frame="chatml",
        **_CHAT,
    ),
}
