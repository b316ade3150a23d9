"""The sentence encoder and its tokens against transformers, on folders that transformers wrote."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

from omni_smola.data import instruction
from omni_smola.models.layers import Precision
from omni_smola.pretrained import minilm

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

SIZES = {
    "48": dict(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=80,
        vocab_size=120,
        max_position_embeddings=40,
    ),
    "24": dict(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=36,
        vocab_size=77,
        max_position_embeddings=17,
        type_vocab_size=3,
        layer_norm_eps=1e-5,
    ),
}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = """
the cat sat on mat cafe naive resume uber Café É straße ß ı é . , ! ? '
" ( ) [ ] { } - _ + = < > / | @ # $ % ^ & * ~ ` ; : … — “ ” ¿ « » 中 国 文
字 日 本 の ひ ##ら か ##な カ ##ナ 한 ##국 ᄒ ##ᅡ ##ᆫ и п ##р ##и α σ ##α ##σ ا ##ل
☃ 😀 ½ ² ﬁ ##ing
""".split()
TEXTS = [
    "The cat sat on the mat.",
    "Café naïve résumé Über Straße É",
    "cafe\u0301 nai\u0308ve E\u0301 e\u0327\u0301\u0308",
    "中国文字 mixed中文text 日本のひらがな カナ",
    "한국 \u1112\u1161\u11ab",
    "don't (stop)! [now] {x} a_b c-d e/f #1 $5 50% a@b.c",
    "“quoted” — dash … ¿qué? «x» $+<=>^`|~",
    "",
    " \t\n\r ",
    "a\u00a0b\u2003c\u3000d\u2028e\u2029f",
    "zero\u200bwidth\u200djoin\ufeffbom \u00adsoft",
    "ctrl\x00nul\x07bel\x7fdel\x85nel \ufffd",
    "😀 smile ☃ 👩\u200d👩\u200d👧",
    "İstanbul ıI ΑΣΑ ﬁne Å",
    "привет Йи й",
    "السَّلام عليكم",
    *("x" * n for n in (99, 100, 101, 201)),
    "a " * 100,
    "the cat " * 40,
    "[CLS] cat [SEP] [MASK] [PAD] [UNK] [mask] [ CLS ]",
    "½ ⅓ ① ² x²",
    "१२३ ४५ ไทย ภาษา",
    "𠀀𠀁 \U0002f800 \uf900",
    "～全角ＡＢＣ１２３！？ ＣＡＦÉ",
    "box of [0.123,0.456,0.789,0.999]",
    "https://a.b/c?d=e&f=g",
    "\U0001d400\U0001d401 math \ue000 private",
    "ŉ ǅ ﷺ ㎏ ℃ №",
]


def bert(name):
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES[name])
    model = transformers.BertModel(config).eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            # As drawn, biases are zero, norms one, and attention weights all but equal.
            noise = 0.3 * torch.randn_like(parameter)
            parameter.copy_(noise + ("LayerNorm.weight" in path))
    return model


@pytest.mark.parametrize("name", SIZES)
def test_the_embedding_of_a_folder(name, tmp_path):
    model = bert(name)
    model.save_pretrained(tmp_path)
    sizes = SIZES[name]
    rng = np.random.default_rng(0)
    length = sizes["max_position_embeddings"]
    mask = np.arange(length) < np.array([length, 9, 2, length - 1])[:, None]
    tokens = rng.integers(0, sizes["vocab_size"], mask.shape).astype(np.int32)
    with torch.no_grad():
        hidden = model(
            input_ids=torch.tensor(tokens, dtype=torch.long), attention_mask=torch.tensor(mask)
        ).last_hidden_state
        weight = torch.tensor(mask)[..., None].float()
        mean = (hidden * weight).sum(1) / weight.sum(1)
        want = torch.nn.functional.normalize(mean, dim=-1).numpy()
    encoder = minilm.sentence_encoder(tmp_path, Precision())
    assert sum(x.size for x in jax.tree.leaves(minilm.load(tmp_path)[1])) == sum(
        p.numel() for path, p in model.named_parameters() if "pooler" not in path
    )
    got = nnx.jit(lambda encoder: encoder(tokens, mask))(encoder)
    assert np.max(np.std(want, axis=0)) > 0.05  # the texts matter
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_a_model_with_heads_has_the_same_encoder(tmp_path):
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES["24"])
    model = transformers.BertForMaskedLM(config)
    model.save_pretrained(tmp_path / "heads")
    model.bert.save_pretrained(tmp_path / "bare")
    _, got = minilm.load(tmp_path / "heads")
    _, want = minilm.load(tmp_path / "bare")
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[path], want[path]) for path in want)


@pytest.mark.parametrize(
    ("options", "strips_accents"),
    [
        ({}, True),
        ({"tokenize_chinese_chars": False}, True),
        ({"do_lower_case": False}, False),
        ({"strip_accents": False}, False),
    ],
    ids=str,
)
def test_tokens_equal_those_of_transformers(options, strips_accents, tmp_path):
    words = [*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    assert len(set(words)) == len(words)
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    original = transformers.BertTokenizer.from_pretrained(tmp_path, **options)
    saved = tmp_path / "saved"
    original.save_pretrained(saved)
    assert (saved / "tokenizer.json").is_file()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(options))
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    python = BertTokenizerLegacy(tmp_path / "vocab.txt", **options)
    for length in (64, 7):
        asked = dict(truncation=True, max_length=length, padding="max_length")
        want = original(TEXTS, **asked)
        # Where accents stay, the Python original composes them (NFC) and its successor does not.
        if strips_accents:
            assert python(TEXTS, **asked)["input_ids"] == want["input_ids"]
        for folder in (tmp_path, saved):
            tokens, mask = instruction.load(folder, length)(np.array(TEXTS, object))
            for i, text in enumerate(TEXTS):
                assert tokens[i].tolist() == want["input_ids"][i], (folder, text)
                assert mask[i].tolist() == [bool(x) for x in want["attention_mask"][i]], text
