"""Images and texts in memory as the pipeline's batch."""

import io
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from flax import nnx
from PIL import ExifTags, Image

from omni_smola.data import ask, framing, vocabulary
from omni_smola.data.features import decode_image
from omni_smola.data.in_memory import _square, make_batch
from omni_smola.data.tokenizer import load_tokenizer
from omni_smola.errors import UserError
from omni_smola.models.origin import Origin


class Model(nnx.Module):
    """All that is read of a model."""

    def __init__(self, **changes):
        fields = dict(
            name="tiny",
            weights="",
            dtype="float32",
            image_size=24,
            vocabulary=3072,
            tokenizer="shipped",
        )
        self.origin = Origin(**fields | changes)


def pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_a_batch_is_that_of_the_pipeline(tmp_path):
    Image.fromarray(pixels(24, 24, 1)).save(tmp_path / "a.png")
    images = [pixels(24, 24), tmp_path / "a.png", None, str(tmp_path / "a.png")]
    images.append(Image.fromarray(pixels(24, 24, 2)).convert("RGBA"))
    images.append((tmp_path / "a.png").read_bytes())
    prompts = ["what is it?", "a", "", "how many cars are on the road?", "b", "c"]
    batch = make_batch(Model(), images, prompts, ["one", "", "two", "seven", "x", "y"])
    seqio = vocabulary.load()
    for name, texts in (("prompt", prompts), ("target", ["one", "", "two", "seven", "x", "y"])):
        for row, text in zip(batch[name], texts, strict=True):
            ids = [*seqio.encode(text), seqio.eos_id]
            assert row.tolist() == ids + [0] * (len(row) - len(ids))
        assert batch[name].dtype == np.int32 and batch[name].shape[1] % 8 == 0
        np.testing.assert_array_equal(batch[f"{name}_mask"], batch[name] != 0)
    assert batch["image_mask"].tolist() == [True, True, False, True, True, True]
    assert batch["image"].shape == (6, 24, 24, 3) and batch["image"].dtype == np.uint8
    for row, wanted in enumerate([pixels(24, 24), pixels(24, 24, 1), 0, pixels(24, 24, 1)]):
        np.testing.assert_array_equal(batch["image"][row], wanted)
    np.testing.assert_array_equal(batch["image"][4], pixels(24, 24, 2))
    np.testing.assert_array_equal(batch["image"][5], pixels(24, 24, 1))


def test_lengths_and_what_is_left_out():
    batch = make_batch(Model(), None, ["a long question about cars", "b"], prompt_length=3)
    first, second = batch["prompt"].tolist()
    assert first == [*load_tokenizer().encode("a long question about cars")[:2], 1]
    assert second == [*load_tokenizer().encode("b"), 1, 0][:3]
    assert "target" not in batch and not batch["image_mask"].any() and not batch["image"].any()
    batch = make_batch(object(), None, ["a"], tokenizer=load_tokenizer(), resolution=6)
    assert batch["image"].shape == (1, 6, 6, 3)


@pytest.mark.parametrize("size", [(480, 640), (100, 37), (20, 20), (97, 96), (1, 1), (40, 96)])
def test_resized_pixels_are_the_pipelines_but_for_a_few_last_bits(size):
    noise = pixels(*size)
    smooth = np.linspace(0, 255, noise.size).reshape(noise.shape).astype(np.uint8)
    for image in (noise, smooth):
        wanted = decode_image(tf.io.encode_png(image), 96).numpy().astype(int)
        apart = np.abs(_square(image, 96) - wanted)
        assert apart.max() <= 1 and (apart > 0).mean() < 0.02


@pytest.mark.parametrize(
    ("images", "prompts", "targets", "said"),
    [
        (None, [], None, "given no prompts"),
        (None, "how many?", None, "prompts has 'how many\\?', but it is a list of strings"),
        (None, ["a", 3], None, "prompts has 3, but"),
        (None, ["a"], "b", "targets has 'b', but"),
        (None, ["a"], ["b", "c"], "given 2 targets and 1 prompts: give one for each"),
        ([None], ["a", "b"], None, "given 1 images and 2 prompts"),
        ([pixels(4, 4) / 255], ["a"], None, r"shape \(4, 4, 3\) and the dtype float64"),
        ([pixels(4, 4)[..., 0]], ["a"], None, r"shape \(4, 4\)"),
        ([pixels(4, 4)[:0]], ["a"], None, r"shape \(0, 4, 3\)"),
        ([pixels(4, 4)[None]], ["a"], None, r"shape \(1, 4, 4, 3\)"),
        ([b"png"], ["a"], None, "The image cannot be read .it is not an image in a format"),
        ([3], ["a"], None, "An image is a int, but it may be a NumPy array"),
        (
            ["nowhere.png"],
            ["a"],
            None,
            r"image nowhere.png cannot be read \(there is no such file\)",
        ),
        ([pathlib.Path(__file__)], ["a"], None, "test_in_memory.py cannot be read"),
    ],
)
def test_mistakes_are_sentences(images, prompts, targets, said):
    with pytest.raises(UserError, match=said):
        make_batch(Model(), images, prompts, targets)


def test_what_is_not_known_of_a_model():
    with pytest.raises(UserError, match=r"No tokenizer belongs to this model: pass tokenizer="):
        make_batch(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), None, ["a"])
    with pytest.raises(UserError, match=r"No tokenizer belongs to this model"):
        make_batch(Model(tokenizer=""), None, ["a"])
    with pytest.raises(UserError, match="resolution of this model is not known"):
        make_batch(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), None, ["a"], tokenizer=load_tokenizer())
    with pytest.raises(UserError, match="has 3072 pieces, but the backbone tiny embeds 40"):
        make_batch(Model(vocabulary=40), None, ["a"])
    with pytest.raises(UserError, match="prompt_length is 1, but a text and its end take 2"):
        make_batch(Model(), None, ["a"], prompt_length=1)


def transparent(tmp_path):
    """Black writing on nothing: blended on white."""
    image = Image.fromarray(pixels(24, 24, 3)).convert("RGBA")
    image.putalpha(Image.fromarray(pixels(24, 24, 4)[..., 0]))
    image.save(tmp_path / "transparent.png")
    return tmp_path / "transparent.png"


def palette(tmp_path):
    """One entry of a palette is transparent."""
    image = Image.fromarray(pixels(24, 24, 3)).quantize(16)
    image.save(tmp_path / "palette.png", transparency=3)
    return tmp_path / "palette.png"


def deep(tmp_path):
    """16 bits of grey."""
    grey = np.arange(24 * 24, dtype=np.uint16).reshape(24, 24) * 113
    Image.fromarray(grey).save(tmp_path / "deep.png")
    return tmp_path / "deep.png"


def turned(tmp_path):
    """A photograph taken on its side."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels(24, 24, 5)).save(tmp_path / "turned.png", exif=exif)
    return tmp_path / "turned.png"


@pytest.mark.parametrize("make", [transparent, palette, deep, turned], ids=lambda f: f.__name__)
def test_an_image_is_the_same_in_a_file_in_bytes_and_opened(tmp_path, make):
    file = make(tmp_path)
    images = [file, file.read_bytes(), Image.open(file)]
    wanted = decode_image(tf.constant(file.read_bytes()), 24).numpy()
    for row in make_batch(Model(), images, ["a"] * 3)["image"]:
        np.testing.assert_array_equal(row, wanted)


def test_pillow_images_that_are_refused_as_files_are(tmp_path):
    for image, said in (
        (Image.fromarray(np.full((4, 4), 3.5, np.float32)), "floats from 3.5 to 3.5"),
        (Image.new("RGB", (0, 4)), "0 x 4 pixels"),
    ):
        with pytest.raises(UserError, match=f"The image cannot be read .it.*{said}"):
            make_batch(Model(), [image], ["a"])
    Image.fromarray(pixels(24, 24)).save(tmp_path / "a.png")
    cut = (tmp_path / "a.png").read_bytes()[:900]
    with pytest.raises(UserError, match="its data are damaged"):
        make_batch(Model(), [Image.open(io.BytesIO(cut))], ["a"])


FAMILIES = {
    "t5": {},
    "t5gemma2": dict(bos=7, **{"<start_of_image>": 8, "<end_of_image>": 9}),
    "paligemma": dict(bos=7),
    "plain": dict(bos=7),
    "gemma": dict(bos=7, **{"<start_of_turn>": 8, "<end_of_turn>": 9}),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [5, 12])
def test_ids_and_masks_are_those_of_the_command_line(tmp_path, family, length):
    """Of prediction and of training, which read a seqio.Vocabulary."""
    ids = FAMILIES[family]
    model = Model(family=family, frame_ids=tuple(ids.items()))
    theirs = framing.load("auto", vocabulary.load(), family, ids)
    Image.fromarray(pixels(24, 24, 1)).save(tmp_path / "a.png")
    prompts = ["how many cars are on the road at night?", "what?", ""]
    answers = ["seven or eight cars and a bus that is red", "seven", ""]
    images = [str(tmp_path / "a.png"), None, str(tmp_path / "a.png")]
    ours = make_batch(model, images, prompts, answers, prompt_length=length, target_length=length)
    for row, (prompt, answer, image) in enumerate(zip(prompts, answers, images, strict=True)):
        asked = ask.make_batch(
            image, prompt, framing=theirs, prompt_length=theirs.width(length), resolution=24
        )
        assert asked.keys() == ours.keys() - {"target", "target_mask"}
        for name, field in asked.items():
            np.testing.assert_array_equal(ours[name][row], field[0], err_msg=name)
        ids, target, spans = framing.example(
            theirs,
            prompt,
            answer,
            image=image is not None,
            prompt_length=theirs.width(length),
            target_length=length,
        )
        for name, wanted in (("prompt", ids), ("target", target)):
            mask = ours[f"{name}_mask"][row]
            assert ours[name][row][mask].tolist() == wanted.tolist()
            assert mask.sum() == len(wanted) and not ours[name][row][~mask].any()
        if "frame" in ours:
            assert ours["frame"][row].tolist() == spans.tolist()
    free = make_batch(model, images, prompts, answers)
    assert free["prompt"].shape[1] % 8 == 0 and free["target"].shape[1] % 8 == 0
    width = free["prompt"].shape[1]
    for row, (prompt, image) in enumerate(zip(prompts, images, strict=True)):
        wanted = theirs.prompt(prompt, image=image is not None)
        assert len(wanted) <= width and free["prompt"][row][: len(wanted)].tolist() == wanted
