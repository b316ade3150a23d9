"""Small tokenizers of each family of models, in folders as transformers writes them.

Vocabularies are trained on Python's help topics: which pieces there are does not matter, only how
texts, special tokens and blanks become ids.
"""

import json
from pydoc_data.topics import topics

import sentencepiece

TEXT = [
    *"\n".join(topics.values())[:60_000].split("\n"),
    "caption in en",
    "Answer in en: what is the colour of the ball?",
    "A chat between a curious user and an artificial intelligence assistant. USER: ASSISTANT:",
    "a dog runs over the grass with two \n\n blue balls  and 1234567890 stars",
]

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


def t5(folder, more=()):
    """T5's spiece.model; or mT5's, with pieces of more texts and bytes of the rest."""
    _train(
        folder / "spiece.model",
        model_type="unigram",
        text=[*TEXT, *more],
        vocab_size=1200 if more else 900,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        byte_fallback=bool(more),
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
    import transformers

    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
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
