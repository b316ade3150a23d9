"""T5Gemma 2 against transformers: features, logits and decoding, on folders that it wrote.

The weights are random, in float32; no size is another's multiple where the architecture lets it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from omni_smola.evaluation import decode
from omni_smola.models.layers import Precision
from omni_smola.models.t5 import Options
from omni_smola.models.t5gemma2 import T5Gemma2
from omni_smola.pretrained import load, t5gemma2
from omni_smola.token_kinds import TokenKind

from ..framed import framed

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

BOS, NEWLINES, BOI, EOI, IMAGE = 2, 108, 128, 129, 130
ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
}
STACK = dict(
    vocab_size=131,
    hidden_size=42,
    intermediate_size=52,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=10,
    query_pre_attn_scalar=7,
    sliding_window=5,
    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    rope_parameters=ROPE,
)
TOWER = dict(
    model_type="siglip_vision_model",
    hidden_size=20,
    intermediate_size=28,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=32,
    patch_size=8,
    vision_use_head=False,
)
# Windows and depths odd and even, two resolutions, encoder and decoder unlike.
VARIANTS = {
    "capped": dict(decoder=dict(final_logit_softcapping=3.0)),
    "unlike": dict(
        encoder=dict(
            sliding_window=4,
            layer_types=["full_attention", "sliding_attention"],
            num_hidden_layers=2,
            rms_norm_eps=1e-3,
            rope_parameters=ROPE | {"full_attention": {"rope_type": "default"}},
        ),
        decoder=dict(num_attention_heads=3, num_key_value_heads=1, intermediate_size=44),
        tower=dict(image_size=48, vision_use_head=True, layer_norm_eps=1e-4),
    ),
}
LENGTH = 12


def original(name, seed=0):
    """transformers' model; the weights that it starts at zero or one are random, too."""
    changes = VARIANTS[name]
    config = transformers.T5Gemma2Config(
        encoder=dict(
            text_config=STACK | changes.get("encoder", {}),
            vision_config=TOWER | changes.get("tower", {}),
            mm_tokens_per_image=4,
            boi_token_index=BOI,
            eoi_token_index=EOI,
        ),
        decoder=STACK | changes["decoder"],
        image_token_index=IMAGE,
    )
    model = transformers.T5Gemma2ForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for path, weight in model.named_parameters():
            weight.normal_(generator=generator)
            is_norm = "norm" in path and path.endswith("weight")
            small = is_norm or path.endswith("bias")
            weight.mul_(0.3 if small else max(weight.shape[-1], 8) ** -0.5)
            if is_norm and "vision_tower" in path:  # the others' factors are 1 + weight
                weight.add_(1.0)
    return model


def ours(folder, options=None):
    config = t5gemma2.read_config(folder)
    model = nnx.eval_shape(lambda: T5Gemma2(config, options=options, rngs=nnx.Rngs(0)))
    load.fill(model, folder, t5gemma2.family(config))
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name of a variant -> its folder; nothing writes to it."""
    made = {}
    for name in VARIANTS:
        made[name] = tmp_path_factory.mktemp("folder")
        original(name).save_pretrained(made[name])
    return made


def make_batch(image_size, seed=0, target=9):
    """Image and prompt, image and a padded prompt, a padded prompt alone, and nothing at all."""
    rng = np.random.default_rng(seed)
    mask = np.arange(7) < np.array([7, 3, 5, 0])[:, None]
    made = {
        "image": rng.integers(0, 256, (4, image_size, image_size, 3)).astype(np.uint8),
        "image_mask": np.array([True, True, False, False]),
        "prompt": (rng.integers(3, NEWLINES, (4, 7)) * mask).astype(np.int32),
        "prompt_mask": mask,
        "target": rng.integers(3, NEWLINES, (4, target)).astype(np.int32),
    }
    made["prompt"][2, 1] = made["target"][:, 0] = EOI  # it has an embedding of its own
    return framed(made, [BOS], seen=[BOS, NEWLINES, BOI, EOI, NEWLINES], place=3)


def torch_inputs(batch):
    """The batch as transformers' processor makes it: placeholders, and padding behind."""
    fields = (batch["image_mask"], batch["prompt"], batch["prompt_mask"])
    rows = [
        [*prompt[mask][: 3 * shown], *[IMAGE] * 4 * int(shown), *prompt[mask][3 * shown :]]
        for shown, prompt, mask in zip(*fields, strict=True)
    ]
    length = max(map(len, rows))
    pixels = batch["image"][batch["image_mask"]].astype(np.float32).transpose(0, 3, 1, 2)
    return {
        "input_ids": torch.tensor([row + [0] * (length - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in rows]),
        "pixel_values": torch.from_numpy((pixels / 255 - 0.5) / 0.5),
    }


@nnx.jit
def outputs(model, batch):
    encoded, kinds, _ = model.encode(batch)
    return encoded, kinds, model(batch)


def assert_near(got, want):
    """Within 1e-4 of the largest value; at most 3e-6 was seen."""
    assert np.std(want) > 0.1
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("name", VARIANTS)
def test_features_and_logits(folders, name):
    model, oracle = ours(folders[name]), original(name)
    batch = make_batch(model.config.vision.image_size)
    inputs = torch_inputs(batch)
    with torch.no_grad():
        want = oracle(**inputs, labels=torch.from_numpy(batch["target"]).long())
    encoded, kinds, logits = outputs(model, batch)
    for row, real in enumerate(inputs["attention_mask"].bool().numpy()):
        got = encoded[row][kinds[row] != TokenKind.PADDING]
        assert_near(got, want.encoder_last_hidden_state[row].numpy()[real])
    assert_near(logits, want.logits.numpy())


@nnx.jit
def greedy(model, batch):
    rows = batch["prompt"].shape[0]
    return decode.greedy(model.step, model.init_cache(batch, LENGTH), rows, LENGTH)


def test_greedy_decoding_of_twenty_models_token_for_token(tmp_path):
    found, model = [], None
    for seed in range(20):
        oracle = original("capped", seed)
        with torch.no_grad():
            oracle.lm_head.out_proj.weight[1] *= 2.5  # the EOS, that some end early
        oracle.save_pretrained(tmp_path)
        if model is None:
            model = ours(tmp_path)
        else:
            load.fill(model, tmp_path, t5gemma2.family(model.config))
        batch = make_batch(32, seed)
        tokens = np.asarray(greedy(model, batch))
        inputs = torch_inputs(batch)
        with torch.no_grad():
            want = oracle.generate(**inputs, max_new_tokens=LENGTH, do_sample=False).numpy()
        assert np.all(want[:, 0] == BOS)
        want = np.pad(want[:, 1:], ((0, 0), (0, LENGTH + 1 - want.shape[1])))
        np.testing.assert_array_equal(tokens, want)
        found.append(tokens)
    found = np.concatenate(found)
    ended = np.any(found == 1, axis=1)
    assert 0 < ended.sum() < len(found)
    assert len(np.unique(found)) > 60


def test_the_other_names_of_the_same_tensors(folders, tmp_path):
    """transformers' names in memory, the hub's for the tower, and copies of the one embedding."""
    tensors = load_file(folders["capped"] / "model.safetensors")
    encoder = "model.encoder."
    renamed = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{encoder}vision_tower."):
            name = name.replace("vision_tower.", "vision_tower.vision_model.")
        elif name.startswith(encoder) and "multi_modal" not in name:
            name = name.replace(encoder, f"{encoder}text_model.")
        renamed[name] = tensor
    embedding = tensors[f"{encoder}embed_tokens.weight"]
    renamed["lm_head.out_proj.weight"] = embedding
    renamed["model.decoder.embed_tokens.weight"] = embedding
    save_file(renamed, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folders["capped"] / "config.json").read_bytes())
    got, want = (nnx.state(ours(folder)) for folder in (tmp_path, folders["capped"]))
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_embeddings_in_bfloat16_bit_for_bit(folders):
    """The factor sqrt(42) is rounded before it is multiplied by."""
    model = ours(folders["capped"], Options(Precision(jnp.bfloat16, jnp.bfloat16)))
    table = original("capped").get_input_embeddings().to(torch.bfloat16)
    tokens = np.arange(131, dtype=np.int32)[None]
    with torch.no_grad():
        want = table(torch.from_numpy(tokens).long()).float().numpy()
    np.testing.assert_array_equal(np.asarray(model.embed(tokens), np.float32), want)
