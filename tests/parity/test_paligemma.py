"""PaliGemma 1 and 2 against transformers: logits and decoding, on folders that it wrote.

Windows are shorter than the prefix, so that what sees it whole matters; soft-caps are low.
"""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from omni_smola.errors import UserError
from omni_smola.models.paligemma import PaliGemma
from omni_smola.pretrained import load, paligemma

from ..framed import framed
from . import test_gemma as shared

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

BOS, NEWLINE, IMAGE = 2, 108, 130
TOWER = dict(
    model_type="siglip_vision_model",
    hidden_size=20,
    intermediate_size=28,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=24,
    patch_size=8,
    vision_use_head=False,
)
VARIANTS = {
    "first": (shared.VARIANTS["first"][1] | {"model_type": "gemma"}, TOWER),
    "second": (
        shared.SECOND | {"model_type": "gemma2"},
        TOWER | dict(image_size=32, vision_use_head=True, layer_norm_eps=1e-3),
    ),
}


def original(name, seed=0):
    text, tower = VARIANTS[name]
    config = transformers.PaliGemmaConfig(
        text_config=shared.SIZES | text,
        vision_config=tower,
        projection_dim=shared.SIZES["hidden_size"],
        image_token_index=IMAGE,
    )
    make = transformers.PaliGemmaForConditionalGeneration._from_config
    return shared.randomize(make(config, attn_implementation="eager"), seed)


def ours(folder, image_size=None):
    config = paligemma.read_config(folder)
    if image_size is not None:
        vision = dataclasses.replace(config.vision, image_size=image_size)
        config = dataclasses.replace(config, vision=vision)
    model = nnx.eval_shape(lambda: PaliGemma(config, rngs=nnx.Rngs(0)))
    load.fill(model, folder, paligemma.family(config))
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name of a variant -> its folder; nothing writes to it."""
    made = {}
    for name in VARIANTS:
        made[name] = tmp_path_factory.mktemp("folder")
        original(name).save_pretrained(made[name])
    return made


def make_batch(image_size, seed=0):
    """Image and prompt, image and a padded prompt, a padded prompt alone, and an image alone."""
    batch = shared.make_batch(seed, vocabulary=IMAGE, bos=None)
    images = np.random.default_rng(seed).integers(0, 256, (4, image_size, image_size, 3))
    shown = np.array([True, True, False, True])
    batch |= {"image": images.astype(np.uint8), "image_mask": shown}
    return framed(batch, [BOS], [NEWLINE])


def rows_of(batch, tokens):
    """The prefix of each example as transformers' processor makes it."""
    return [
        [*[IMAGE] * tokens * bool(shown), *row]
        for shown, row in zip(batch["image_mask"], shared.prompts(batch), strict=True)
    ]


def pixels(batch):
    image = batch["image"][batch["image_mask"]].astype(np.float32).transpose(0, 3, 1, 2)
    return torch.from_numpy((image / 255 - 0.5) / 0.5)


def wanted_logits(oracle, batch, tokens):
    rows = rows_of(batch, tokens)
    whole = [[*row, *target[:-1]] for row, target in zip(rows, batch["target"], strict=True)]
    inputs = shared.padded(whole, left=False)
    types = [[0] * len(row) + [1] * (shared.TARGET - 1) for row in rows]
    types = shared.padded(types, left=False)["input_ids"]
    with torch.no_grad():
        found = oracle(**inputs, token_type_ids=types, pixel_values=pixels(batch)).logits
    return shared.answers(found, rows)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_at_once_and_with_a_cache(folders, name):
    model, oracle = ours(folders[name]), original(name)
    batch = make_batch(model.config.vision.image_size)
    want = wanted_logits(oracle, batch, model.config.vision.tokens)
    shared.assert_near(shared.logits(model, batch), want)
    shared.assert_near(shared.stepwise(model, batch), want)


@pytest.mark.parametrize("name", VARIANTS)
def test_greedy_decoding_of_ten_models_each_token_for_token(name, tmp_path):
    found, model = [], None
    for seed in range(10):
        oracle = original(name, seed)
        with torch.no_grad():
            oracle.get_input_embeddings().weight[1] *= 2.5  # the EOS, that some end early
        oracle.save_pretrained(tmp_path)
        if model is None:
            model = ours(tmp_path)
        else:
            load.fill(model, tmp_path, paligemma.family(model.config))
        vision = model.config.vision
        batch = make_batch(vision.image_size, seed)
        tokens = np.asarray(shared.greedy(model, batch))
        inputs = shared.padded(rows_of(batch, vision.tokens), left=True)
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        inputs["pixel_values"] = pixels(batch)
        want = shared.wanted_greedy(oracle, inputs, inputs["input_ids"].shape[1])
        np.testing.assert_array_equal(tokens, want)
        found.append(tokens)
    found = np.concatenate(found)
    ended = np.any(found == 1, axis=1)
    assert 0 < ended.sum() < len(found)
    assert len(np.unique(found)) > 60


def test_another_resolution_by_resampled_positions(folders):
    oracle, model = original("second"), ours(folders["second"], image_size=48)
    tower = oracle.model.vision_tower
    batch = make_batch(48)
    kinds = np.full((3, 36), 2, np.int32)
    with torch.no_grad():
        want = tower(pixels(batch), interpolate_pos_encoding=True).last_hidden_state
        want = oracle.model.multi_modal_projector(want).numpy()
    got = model.visual_tokens(batch, None)
    shared.assert_near(got[0][batch["image_mask"]], want)
    np.testing.assert_array_equal(got[1][batch["image_mask"]], kinds)


def test_the_other_names_of_the_same_tensors(folders, tmp_path):
    """Those of version 4.52, and a copy of the embedding as head."""
    tensors = load_file(folders["second"] / "model.safetensors")
    renamed = {}
    for name, tensor in tensors.items():
        name = name.replace("vision_tower.", "vision_tower.vision_model.")
        name = name.replace("language_model.model.", "language_model.")
        renamed[f"model.{name}"] = tensor
    renamed["lm_head.weight"] = tensors["language_model.model.embed_tokens.weight"]
    save_file(renamed, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folders["second"] / "config.json").read_bytes())
    got, want = (nnx.state(ours(folder)) for folder in (tmp_path, folders["second"]))
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("", {"model_type": "llava"}, "type 'llava', but a PaliGemma"),
        ("", {"tie_word_embeddings": None}, "tie_word_embeddings is None"),
        ("text_config", {"model_type": "gemma3_text"}, "model_type is 'gemma3_text', but only"),
        ("text_config", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("vision_config", {"model_type": "clip_vision_model"}, "model_type is 'clip_vision"),
        ("vision_config", {"patch_size": None}, "patch_size is None"),
    ],
    ids=str,
)
def test_what_is_not_computed_is_refused(folders, part, changes, said, tmp_path):
    (tmp_path / "config.json").write_bytes((folders["first"] / "config.json").read_bytes())
    fields = paligemma.towers.huggingface.config(tmp_path)
    shared.changed_config(tmp_path, **({part: fields[part] | changes} if part else changes))
    with pytest.raises(UserError, match=said):
        paligemma.read_config(tmp_path)
