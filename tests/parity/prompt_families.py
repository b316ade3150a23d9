"""Small tokenizers and processors of each family, and what transformers makes of prompts.

Vocabularies are trained on this repository's own text: which pieces there are does not matter, only
how texts, special tokens and blanks become ids.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable

import numpy as np
import sentencepiece
from PIL import Image

from omni_smola.data import frames
from omni_smola.data import vocabulary as vocabularies
from omni_smola.data.framing import Framing, load

TEXT = [
    *(pathlib.Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").split("\n"),
    "caption in en",
    "Answer in en: what is the colour of the ball?",
    "A chat between a curious user and an artificial intelligence assistant. USER: ASSISTANT:",
    "a dog runs over the grass with two \n\n blue balls  and 1234567890 stars",
]

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

GEMMA_CHAT = (
    "{{ bos_token }}{% for m in messages %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA2_CHAT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR_CHAT = (
    "{% for m in messages %}\n{% if m['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + m['content'] + eos_token }}\n{% else %}\n"
    "{{ '<|assistant|>\n' + m['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
CHATML_CHAT = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def t5(folder, *, many=False):
    """T5's spiece.model, or mT5's, which has pieces of many scripts and bytes of the rest."""
    _train(
        folder / "spiece.model",
        model_type="unigram",
        text=[*TEXT, *PROMPTS] if many else TEXT,
        vocab_size=1200 if many else 900,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        byte_fallback=many,
        normalization_rule_name="nmt_nfkc",
    )
    _settings(folder, tokenizer_class="T5Tokenizer", eos_token="</s>", pad_token="<pad>")
    return folder


def llama(folder, template=None, *, legacy=False):
    """Llama 2's tokenizer.model and settings, with a chat template if there is one."""
    _train(folder / "tokenizer.model", unk_id=0, bos_id=1, eos_id=2, pad_id=-1, **_LLAMA)
    _settings(
        folder,
        tokenizer_class="LlamaTokenizer",
        legacy=legacy,
        add_bos_token=True,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        **({} if template is None else {"chat_template": template}),
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def gemma(folder, template=None, *, third=False):
    """Gemma's tokenizer.json, made of a SentencePiece model as the published one was.

    third: Gemma 3's, which names the tokens around an image.
    """
    import tokenizers
    import transformers

    model = folder / "made.model"
    symbols = ["<mask>", "<start_of_turn>", "<end_of_turn>"]
    symbols += ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    symbols += ["\n" * n for n in range(1, 6)]
    _train(
        model,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        bos_piece="<bos>",
        eos_piece="<eos>",
        pad_piece="<pad>",
        user_defined_symbols=symbols,
        **_LLAMA | {"add_dummy_prefix": False, "vocab_size": 1300},
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    vocab = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    model.unlink()
    marks = {"boi_token": symbols[3], "eoi_token": symbols[4], "image_token": symbols[5]}
    more = {"extra_special_tokens": marks} if third else {}
    tokenizer = transformers.GemmaTokenizer(
        vocab=vocab, merges=_merges(vocab), add_bos_token=True, **more
    )
    tokenizer.add_tokens([tokenizers.AddedToken("\n" * n, normalized=False) for n in range(1, 6)])
    tokenizer.add_special_tokens({"additional_special_tokens": symbols[:3]})
    if template:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def as_json(folder):
    """The same tokenizer as transformers writes it: tokenizer.json and no SentencePiece model."""
    tokenizer_of(folder).save_pretrained(folder)
    (folder / "tokenizer.model").unlink()
    return folder


def smollm(folder, template=CHATML_CHAT):
    """A byte-level tokenizer.json such as SmolLM2's."""
    import tokenizers
    import transformers

    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXT, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


_LLAMA = dict(
    model_type="bpe",
    vocab_size=1200,
    byte_fallback=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    split_digits=True,
)


def _train(file, text=TEXT, **how):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_prefix=str(file.with_suffix("")),
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
        **how,
    )
    file.with_suffix(".vocab").unlink()


def _settings(folder, **fields):
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


def _merges(vocab):
    """The pairs of pieces that make a piece, in the order of their ids."""
    found = []
    for piece, i in vocab.items():
        cuts = ((piece[:k], piece[k:]) for k in range(1, len(piece)))
        pairs = [pair for pair in cuts if pair[0] in vocab and pair[1] in vocab]
        found += [(i, max(vocab[a], vocab[b]), (a, b)) for a, b in pairs]
    return [pair for _, _, pair in sorted(found)]


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
    "mT5": Case(lambda folder: t5(folder, many=True), _plain, **_ANSWERED),
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
