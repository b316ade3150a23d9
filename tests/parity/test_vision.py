"""Vision towers against transformers, on folders that transformers wrote, in float32.

Where there are several resolutions, transformers interpolates the position embeddings itself. The
largest difference over the largest value, as measured on a CPU, is 1.4e-6 for the ViTs, and 4.7e-6
for Pix2Struct, whose logits of attention are not scaled.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from omni_smola.errors import UserError
from omni_smola.models import vision_encoders
from omni_smola.models.layers import Precision
from omni_smola.models.vit import ViT
from omni_smola.pretrained import clip, dinov2, eva_clip, load, pix2struct, siglip, tower_files
from omni_smola.training import state

from .vision_models import MODELS, PATCHES, SIZES, arrays, make, ours

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

RELATIVE = 2e-5


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name -> (model of transformers, the folder that it was saved to), made when asked for."""
    made = {}

    def get(name):
        if name not in made:
            _, model, config = MODELS[name]
            model, folder = make(model, **config), tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            made[name] = model, folder
        return made[name]

    return get


@nnx.jit
def features(model, image):
    return model.features(model.normalize(image))


def pixels(side):
    return np.random.default_rng(side).integers(0, 256, (2, side, side, 3), dtype=np.uint8)


PROCESSORS = {
    siglip: "SiglipImageProcessorPil",
    clip: "CLIPImageProcessorPil",
    eva_clip: "CLIPImageProcessorPil",  # BLIP's has the same mean and deviation
    dinov2: "BitImageProcessorPil",
}


def theirs(name, family, model, image):
    """Their hidden states after every block, the first before all, and what follows the last."""
    options = {"do_resize": False, "do_center_crop": False}
    if family is dinov2:
        options |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    processor = getattr(transformers, PROCESSORS[family])(**options)
    values = processor(list(image), return_tensors="pt")["pixel_values"]
    resized = {} if family is dinov2 else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        out = model(pixel_values=values, output_hidden_states=True, **resized)
    hidden = [x.numpy() for x in out.hidden_states]
    assert len(hidden) == SIZES["num_hidden_layers"] + 1
    return hidden, out.last_hidden_state.numpy(), out.pooler_output.numpy()


def check(got, want):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    assert np.std(want, axis=1).max() > 0.1  # the tokens differ
    assert np.abs(got - want).max() <= RELATIVE * np.abs(want).max()


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *((name, side) for name in MODELS for side in (30, 37) if name != "clip_gelu"),
        ("clip_gelu", 30),
        *((name, 16) for name in ("siglip", "dinov2_registers")),
    ],
)
def test_features_at_several_resolutions(name, side, folders):
    family, _, _ = MODELS[name]
    model, folder = folders(name)
    config = dataclasses.replace(family.read_config(folder), image_size=side)
    image = pixels(side)
    hidden, last, _ = theirs(name, family, model, image)
    want = last if config.final_norm else hidden[-1 - config.skip]
    tokens, cls = features(ours(folder, family, config), image)
    first = config.registers + config.class_token
    assert want.shape[1] == first + (side // 7) ** 2
    check(tokens, want[:, first:])
    if config.class_token:
        check(cls[None], want[None, :, 0])
    else:
        assert cls is None


@pytest.mark.parametrize(("name", "skip"), [("clip", 0), ("siglip", 2)])
def test_the_layer_and_the_norm_can_be_chosen(name, skip, folders):
    family, _, _ = MODELS[name]
    model, folder = folders(name)
    config = dataclasses.replace(family.read_config(folder), skip=skip, final_norm=False)
    hidden, _, _ = theirs(name, family, model, pixels(30))
    tower = ours(folder, family, config)
    first = config.registers + config.class_token
    check(features(tower, pixels(30))[0], hidden[-1 - skip][:, first:])
    # The blocks that are not read are not even there.
    assert tower.encoder.layers.norm_1.scale.shape == (3 - skip, 24)


def test_clips_final_norm_is_that_of_the_pooled_token(folders):
    model, folder = folders("clip")
    config = dataclasses.replace(clip.read_config(folder, skip=0), final_norm=True)
    _, _, pooled = theirs("clip", clip, model, pixels(30))
    check(features(ours(folder, clip, config), pixels(30))[1][None], pooled[None])


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    model, folder = make("Pix2StructVision", **PATCHES), tmp_path_factory.mktemp("pix2struct")
    model.save_pretrained(folder)
    return model, folder


@pytest.mark.parametrize("budget", [13, 16])
def test_pix2struct_with_padded_patches(budget, patches):
    model, folder = patches
    sizes = np.array([[3, 4], [2, 5], [1, 13], [0, 0]], np.int32)
    seen = np.arange(budget) < sizes.prod(axis=1)[:, None]
    values = np.random.default_rng(0).normal(size=(4, budget, 27)).astype(np.float32)
    values *= seen[..., None]
    places = np.zeros((4, budget, 2), np.float32)
    for image, (rows, columns) in enumerate(sizes):
        grid = np.stack(np.mgrid[1 : rows + 1, 1 : columns + 1], axis=-1)
        places[image, : rows * columns] = grid.reshape(-1, 2)
    with torch.no_grad():
        flat = torch.tensor(np.concatenate([places, values], axis=-1))
        want = model(flattened_patches=flat).last_hidden_state.numpy()
    run = nnx.jit(lambda model, values, sizes: model(values, sizes))
    tower = ours(folder, pix2struct, pix2struct.read_config(folder))
    got = np.asarray(run(tower, values, sizes))
    for image in range(3):
        check(got[None, image, seen[image]], want[None, image, seen[image]])
    # What stands at padding reaches no token.
    noisy = np.where(seen[..., None], values, 100.0).astype(np.float32)
    again = np.asarray(run(tower, noisy, sizes))
    np.testing.assert_array_equal(again[seen], got[seen])
    assert np.isfinite(got).all()


@pytest.mark.parametrize("name", ["siglip", "clip"])
def test_files_as_the_hub_has_them(name, folders, tmp_path):
    """Every name begins with vision_model, and position_ids are stored."""
    family, _, _ = MODELS[name]
    _, folder = folders(name)
    config = family.read_config(folder)
    tensors = load_file(folder / "model.safetensors")
    hub = {f"vision_model.{each}": tensor for each, tensor in tensors.items()}
    hub["vision_model.embeddings.position_ids"] = np.arange(17)[None]
    save_file(hub, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    got, want = (arrays(each, family, config) for each in (tmp_path, folder))
    assert all(np.array_equal(got[path], want[path]) for path in want)
    del hub["vision_model.encoder.layers.1.mlp.fc1.bias"]
    hub["vision_model.encoder.layers.9.mlp.fc1.bias"] = np.zeros(40, np.float32)
    save_file(hub, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"missing encoder\.layers\.1\.mlp\.fc1\.bias .*unexpect"):
        ours(tmp_path, family, config)


# Towers of MoME, from folders of others.


@pytest.mark.parametrize("size", [37, 28])
@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2"])
def test_an_encoder_of_mome_reads_a_folder(name, size, folders, monkeypatch):
    """In the resolution of its table, 37, or in one that stands behind an @."""
    family, _, _ = MODELS[name]
    model, folder = folders(name)
    config = dataclasses.replace(family.read_config(folder), image_size=37)
    monkeypatch.setitem(vision_encoders.PUBLIC, folder.name, config)
    monkeypatch.setattr(tower_files, "FAMILIES", {folder.name: family})
    called = folder.name if size == 37 else f"{folder.name}@{size}"
    encoder = nnx.eval_shape(
        lambda: vision_encoders.vision_encoder(called, precision=Precision(), rngs=nnx.Rngs(0))
    )
    assert encoder.view.size == size
    params = nnx.state(encoder.vit)
    wanted = state.paths(nnx.to_pure_dict(params))
    read = tower_files.read_tower(folder.parent, called, wanted)
    nnx.replace_by_pure_dict(params, state.nest(read))
    nnx.update(encoder.vit, params)
    image = pixels(size)
    batch = {f"image:{called}": image, "image_mask": np.array([True, False])}
    got = nnx.jit(lambda encoder, batch: encoder(batch))(encoder, batch)
    hidden, last, _ = theirs(name, family, model, image)
    want = last if config.final_norm else hidden[-2]
    first = config.registers + config.class_token
    check(got.tokens, want[:, first:])
    np.testing.assert_array_equal(got.sizes, [[size // 7] * 2, [0, 0]])
    if name == "siglip":
        assert got.cls is None
    else:
        check(got.cls[None], want[None, :, 0])


def test_a_folder_with_another_tower_is_told(folders, tmp_path, monkeypatch):
    _, folder = folders("clip_gelu")
    monkeypatch.setattr(tower_files, "FAMILIES", {folder.name: clip})
    config = clip.read_config(folders("clip")[1])
    monkeypatch.setitem(vision_encoders.PUBLIC, folder.name, config)
    with pytest.raises(UserError, match="it has activation gelu instead of quick_gelu"):
        tower_files.read_tower(folder.parent, folder.name, {})
    with pytest.raises(UserError, match=f"has neither {folder.name}/, a Hugging Face folder"):
        tower_files.read_tower(tmp_path, folder.name, {})
    monkeypatch.setattr(tower_files, "FAMILIES", {folder.name: dinov2})
    with pytest.raises(UserError, match="of type 'clip_vision_model', but a DINOv2 is one of"):
        tower_files.read_tower(folder.parent, folder.name, {})


def test_weights_come_in_the_dtype_that_is_wanted(folders):
    _, folder = folders("siglip")
    config = siglip.read_config(folder)
    how = Precision(jnp.float32, jnp.bfloat16)
    tower = nnx.eval_shape(lambda: ViT(config, precision=how, rngs=nnx.Rngs(0)))
    load.fill(tower, folder, siglip.family(dataclasses.replace(config, image_size=37)))
    assert {x.dtype for x in jax.tree.leaves(nnx.state(tower))} == {jnp.dtype("bfloat16")}
