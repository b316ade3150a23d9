"""Gemma 1 and 2 against transformers: logits and decoding, on folders that it wrote.

The weights are random, in float32; no size is another's multiple where the architecture lets it.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.evaluation import decode
from omni_smola.models.decoder_only import LanguageModel
from omni_smola.pretrained import gemma, load

from ..framed import framed

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

BOS, LENGTH, TARGET = 2, 11, 8
SIZES = dict(
    vocab_size=131,
    hidden_size=36,
    intermediate_size=52,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=10,
)
SECOND = dict(
    sliding_window=4,
    query_pre_attn_scalar=7,
    attn_logit_softcapping=1.5,
    final_logit_softcapping=2.5,
)
LAYERS = ["full_attention", "sliding_attention", "sliding_attention"]
VARIANTS = {
    "first": ("Gemma", dict(num_key_value_heads=1, rms_norm_eps=1e-3)),
    "second": ("Gemma2", SECOND),
    "other layers": (
        "Gemma2",
        SECOND | dict(layer_types=LAYERS, sliding_window=5, attn_logit_softcapping=None),
    ),
    "other base": ("Gemma2", SECOND | dict(rope_parameters={"rope_theta": 300.0})),
}


def randomize(model, seed):
    """Draws every weight of a model of transformers, those too that start at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for path, weight in model.named_parameters():
            weight.normal_(generator=generator)
            is_norm = "norm" in path and path.endswith("weight")
            small = is_norm or path.endswith("bias")
            weight.mul_(0.3 if small else max(weight.shape[-1], 8) ** -0.5)
            if "embed_tokens" in path:  # or what is read last would be what is said next
                weight.mul_(0.3)
            # The factors of Gemma's norms are 1 + weight.
            if is_norm and ("vision_tower" in path or model.config.model_type == "llama"):
                weight.add_(1.0)
    return model.eval()


def original(name, seed=0):
    family, changes = VARIANTS[name]
    config = getattr(transformers, f"{family}Config")(**(SIZES | changes))
    make = getattr(transformers, f"{family}ForCausalLM")._from_config
    return randomize(make(config, attn_implementation="eager"), seed)


def ours(folder, pretrained=gemma):
    config = pretrained.read_config(folder)
    model = nnx.eval_shape(lambda: LanguageModel(config, rngs=nnx.Rngs(0)))
    load.fill(model, folder, pretrained.family(config))
    return model


def make_batch(seed=0, vocabulary=131, bos=BOS):
    """A full prompt, two padded ones and none."""
    rng = np.random.default_rng(seed)
    mask = np.arange(9) < np.array([9, 4, 7, 0])[:, None]
    made = {
        "prompt": (rng.integers(3, vocabulary, (4, 9)) * mask).astype(np.int32),
        "prompt_mask": mask,
        "target": rng.integers(3, vocabulary, (4, TARGET)).astype(np.int32),
    }
    return made if bos is None else framed(made, [bos])


def prompts(batch):
    return [
        [*prompt[mask]] for prompt, mask in zip(batch["prompt"], batch["prompt_mask"], strict=True)
    ]


def padded(rows, left, value=0):
    """(input_ids, attention_mask) of rows that are padded on one side."""
    length = max(map(len, rows))
    fill = [[value] * (length - len(row)) for row in rows]
    ids = [[*f, *row] if left else [*row, *f] for f, row in zip(fill, rows, strict=True)]
    ones = [[1] * len(row) for row in rows]
    zeros = [[0] * len(f) for f in fill]
    mask = [z + o if left else o + z for z, o in zip(zeros, ones, strict=True)]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def answers(logits, rows):
    """Logits of the answer's tokens, which begin where each prompt ends."""
    return np.stack([x[len(r) - 1 :][:TARGET].numpy() for x, r in zip(logits, rows, strict=True)])


def wanted_logits(oracle, batch):
    rows = prompts(batch)
    whole = [[*row, *target[:-1]] for row, target in zip(rows, batch["target"], strict=True)]
    with torch.no_grad():
        return answers(oracle(**padded(whole, left=False)).logits, rows)


def assert_near(got, want):
    """Within 1e-4 of the largest value; at most 2e-6 was seen."""
    assert np.std(want) > 0.1
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


@nnx.jit
def logits(model, batch):
    return model(batch)


@nnx.jit
def stepwise(model, batch):
    """The logits of the target, token by token."""
    cache = model.init_cache(batch, LENGTH)

    def step(cache, inputs):
        tokens, position = inputs
        logits, cache = model.step(cache, tokens, position)
        return cache, logits

    tokens = jnp.pad(batch["target"], ((0, 0), (1, 0)))[:, :-1].T
    _, found = jax.lax.scan(step, cache, (tokens, jnp.arange(len(tokens))))
    return found.swapaxes(0, 1)


@nnx.jit
def greedy(model, batch):
    rows = batch["prompt"].shape[0]
    return decode.greedy(model.step, model.init_cache(batch, LENGTH), rows, LENGTH)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_at_once_and_with_a_cache(name, tmp_path):
    oracle, batch = original(name), make_batch()
    oracle.save_pretrained(tmp_path)
    model = ours(tmp_path)
    want = wanted_logits(oracle, batch)
    assert_near(logits(model, batch), want)
    assert_near(stepwise(model, batch), want)


def wanted_greedy(oracle, inputs, prompt_length):
    with torch.no_grad():
        found = oracle.generate(**inputs, max_new_tokens=LENGTH, do_sample=False).numpy()
    found = found[:, prompt_length:]
    return np.pad(found, ((0, 0), (0, LENGTH - found.shape[1])))


def test_greedy_decoding_of_twenty_models_token_for_token(tmp_path):
    found, model = [], None
    for seed in range(20):
        oracle = original("second", seed)
        with torch.no_grad():
            oracle.get_input_embeddings().weight[1] *= 2.5  # the EOS, that some end early
        oracle.save_pretrained(tmp_path)
        if model is None:
            model = ours(tmp_path)
        else:
            load.fill(model, tmp_path, gemma.family(model.config))
        batch = make_batch(seed)
        tokens = np.asarray(greedy(model, batch))
        inputs = padded(prompts(batch), left=True)
        want = wanted_greedy(oracle, inputs, inputs["input_ids"].shape[1])
        np.testing.assert_array_equal(tokens, want)
        found.append(tokens)
    found = np.concatenate(found)
    ended = np.any(found == 1, axis=1)
    assert 0 < ended.sum() < len(found)
    assert len(np.unique(found)) > 80


def changed_config(folder, **changes):
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gemma3_text"}, "type 'gemma3_text', but a Gemma"),
        ({"hidden_activation": "gelu"}, "hidden_activation is 'gelu', but only"),
        ({"attention_bias": True}, "attention_bias is True, but only False"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn'"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2}},
            "only 'default' is impl.*ed in",
        ),
        ({"layer_types": ["full_attention"]}, "layer_types is"),
        ({"sliding_window": None}, "sliding_window is None"),
        ({"num_key_value_heads": 4}, "num_attention_heads is no multiple"),
        ({"head_dim": 9}, "head_dim is odd"),
        ({"hidden_size": 0}, "hidden_size is 0"),
    ],
    ids=str,
)
def test_what_is_not_computed_is_refused(changes, said, tmp_path):
    family, sizes = VARIANTS["second"]
    getattr(transformers, f"{family}Config")(**(SIZES | sizes)).save_pretrained(tmp_path)
    gemma.read_config(tmp_path)
    changed_config(tmp_path, **changes)
    with pytest.raises(UserError, match=said):
        gemma.read_config(tmp_path)
