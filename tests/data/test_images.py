"""One way from bytes to pixels: the right ones, and the same ones wherever an image is used."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from omni_smola.data import images
from omni_smola.errors import UserError

from .odd_images import CASES, NOISE, RGB, SIDE, chunk, exif, pillow, png, tiff


def near(found: np.ndarray, name: str) -> bool:
    _, expected, error = CASES[name]
    return bool(np.abs(found.astype(int) - expected.astype(int)).max() <= error)


@pytest.mark.parametrize("name", CASES)
def test_pixels_and_size(name):
    found = images.decode(CASES[name][0])
    assert found.dtype == np.uint8 and found.flags["C_CONTIGUOUS"]
    assert near(found, name)
    assert images.size(CASES[name][0]) == images.size(io.BytesIO(CASES[name][0])) == (SIDE, SIDE)


def test_every_entrance_gives_the_same_pixels(tmp_path, monkeypatch):
    import json

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from omni_smola.data import ask, framing, inspect, prepared, tasks
    from omni_smola.data import vocabulary as vocabularies
    from omni_smola.data.pipeline import eval_batches, train_batches

    folder = tmp_path / "odd"
    folder.mkdir()
    lines = []
    for name, (encoded, *_) in CASES.items():
        (folder / name).write_bytes(encoded)
        lines.append(json.dumps({"id": name, "image": name, "captions": [name]}))
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    tasks.register({"odd": str(folder)})
    sizes = dict(batch_size=len(CASES), prompt_length=8, target_length=8, resolution=SIDE)

    ((batch, examples),) = eval_batches("odd", "validation", **sizes)
    evaluated = {
        example["id"]: image for example, image in zip(examples, batch["image"], strict=True)
    }
    assert list(evaluated) == list(CASES)
    for name, image in evaluated.items():
        assert near(image, name), name
    wanted = sorted(image.tobytes() for image in evaluated.values())

    stream = train_batches({"odd": 1.0}, seed=3, **sizes)
    prepared.save_batches(tmp_path / "odd.npz", [next(stream)])
    (trained,) = prepared.load_batches(tmp_path / "odd.npz")
    assert sorted(image.tobytes() for image in trained["image"]) == wanted

    common = dict(
        framing=framing.load("auto", vocabularies.load(None)), prompt_length=8, resolution=SIDE
    )
    for name, image in evaluated.items():
        asked = ask.make_batch(str(folder / name), "what?", **common)
        np.testing.assert_array_equal(asked["image"][0], image, err_msg=name)

    shown = []
    monkeypatch.setattr(Axes, "imshow", lambda self, pixels: shown.append(pixels.tobytes()))
    monkeypatch.setattr(Figure, "savefig", lambda *a, **k: None)
    lengths = dict(split="train", prompt_length=8, target_length=8)
    summaries = list(inspect.summarize({"odd": 1.0}, samples=len(CASES), **lengths))
    inspect.contact_sheet(tmp_path / "sheet.png", summaries)
    assert sorted(shown) == wanted


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_the_displayed_one(orientation):
    meta = Image.Exif()
    meta[0x0112] = orientation
    stored = np.zeros((20, 60, 3), np.uint8)
    stored[:, :20] = 255
    expected = (20, 60) if orientation >= 5 else (60, 20)
    for form, options in {
        "JPEG": {"exif": meta},
        "PNG": {"exif": meta},
        "WEBP": {"exif": meta},
        "TIFF": {"tiffinfo": {0x0112: orientation}},
        "AVIF": {"exif": meta},
    }.items():
        encoded = pillow(stored, form, **options)
        assert images.size(encoded) == expected, form
        assert images.decode(encoded).shape[1::-1] == expected, form
    late = png(stored, 2, after=chunk(b"eXIf", exif(orientation)), size=(60, 20))
    assert images.size(late) == expected


def refusals() -> dict[str, tuple[bytes, str]]:
    whole = png(NOISE[..., :3], 2)
    jpeg = pillow(NOISE[..., :3], "JPEG")
    floats, ints = np.zeros((SIDE, SIDE), np.float32), np.zeros((SIDE, SIDE), np.int32)
    nan = floats.copy()
    nan[3] = np.nan
    return {
        "nothing": (b"", "it is empty, 0 bytes"),
        "text": (b"<svg></svg>", r"not an image in a format that is read \(PNG, JPEG, "),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        "heic": (b"\0\0\0\x18ftypheic" + bytes(400), "not an image in a format"),
        "half a PNG": (whole[: len(whole) // 2], "truncated"),
        "half a JPEG": (jpeg[: len(jpeg) // 2], "(?i)truncated"),
        "only a signature": (whole[:8], "damaged"),
        "no pixels": (whole.replace(b"IDAT", b"IDAX"), "damaged"),
        "0 x 0": (b"P6\n0 0\n255\n", "damaged|0 x 0"),
        "floats to 255": (pillow(floats + 255, "TIFF"), r"floats from 255 to 255.*0 \(black\) to"),
        "floats below 0": (pillow(floats - 0.5, "TIFF"), "floats from -0.5"),
        "not finite": (pillow(nan, "TIFF"), "not finite"),
        "integers below 0": (pillow(ints - 1, "TIFF"), "integers of 32 bits from -1 to -1"),
        "integers of 8 bits": (pillow(ints + 200, "TIFF"), "from 200 to 200"),
        "integers of 32 bits": (pillow(ints + 70_000, "TIFF"), "from 70000 to 70000"),
        "signed 16 bits": (
            tiff(b"\x7f\x7f" * SIDE * SIDE, 16, 1, form=2),
            "signed integers of 16 bits from 32639 to",
        ),
    }


@pytest.mark.parametrize("name", refusals())
def test_what_has_no_pixels_is_one_sentence(name):
    encoded, sentence = refusals()[name]
    with pytest.raises(UserError, match=sentence) as error:
        images.decode(encoded)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_black_integers_are_black():
    assert not images.decode(pillow(np.zeros((3, 3), np.int32), "TIFF")).any()


def test_a_late_end_of_a_transparent_animation_is_not_read():
    frames = [Image.new("RGBA", (8, 8), (255, 0, 0, 255)), Image.new("RGBA", (8, 8))]
    encoded = pillow(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert (images.decode(encoded[:-30]) == (255, 0, 0)).all()


def bomb(width: int, height: int) -> bytes:
    """A PNG of one black bit a pixel."""
    row = bytes(1 + -(-width // 8))
    body = zlib.compressobj(1)
    data = b"".join(body.compress(row) for _ in range(height)) + body.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", head), chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_an_image_too_large_is_refused_with_limit_and_field():
    encoded = bomb(30_000, 30_000)  # far more than Pillow itself would open
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (images.decode, images.size):
            with pytest.raises(
                UserError,
                match=r"30000 x 30000 = 900,000,000 pixels.*limit of 64,000,000.*data\.max_pixels",
            ):
                read(encoded)
        assert images.size(encoded, 900_000_000) == (30_000, 30_000)


def test_a_limit_of_ones_own():
    encoded = png(RGB, 2)
    assert images.decode(encoded, SIDE * SIDE).shape == (SIDE, SIDE, 3)
    with pytest.raises(UserError, match=r"24 x 24 = 576 pixels, more than the limit of 575"):
        images.decode(encoded, SIDE * SIDE - 1)


def test_a_large_jpeg_is_read_at_half_its_sides():
    coarse = np.repeat(np.repeat(RGB, 4, axis=0), 4, axis=1)[:, :-1]  # 95 x 96
    encoded = pillow(coarse, "JPEG", quality=95, exif=b"Exif\0\0" + exif(6))
    assert images.size(encoded, 95 * 48) == (96, 95)
    halved = images.decode(encoded, 95 * 48)
    assert halved.shape == (48, 48, 3)
    expected = np.rot90(coarse, -1)[::2, ::2]
    assert np.abs(halved.astype(int) - expected.astype(int)).mean() < 4
    with pytest.raises(UserError, match="more than 4 times as many, which a JPEG may have"):
        images.decode(encoded, 95 * 24 - 1)


def test_an_encoded_file_too_large_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "x.png", "wb") as file:
        file.truncate(3 << 30)  # takes no room on the disk
    for read in (images.read_file, images.file_size):
        with pytest.raises(UserError, match=r"3,221,225,472 bytes is too large.*data\.max_pixels"):
            read(tmp_path / "x.png")
    with pytest.raises(UserError, match="no such file"):
        images.read_file(tmp_path)


def test_large_images_are_converted_in_strips(monkeypatch):
    from omni_smola.data import image_modes

    whole = {name: images.decode(encoded) for name, (encoded, *_) in CASES.items()}
    monkeypatch.setattr(image_modes, "_STRIP", 5 * SIDE)
    for name, (encoded, *_) in CASES.items():
        np.testing.assert_array_equal(images.decode(encoded), whole[name], err_msg=name)


def test_pillows_settings_are_left_as_they_are():
    before = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS
    assert len(CASES["png-text"][0]) < before[0] < 2 << 20 and before[1] < 80 * 900_000
    filters = list(warnings.filters)
    for name in ("png-text", "png-text-much", "png-profile"):
        images.decode(CASES[name][0])
    after = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS
    assert after == before and warnings.filters == filters


def test_the_suites_ingredients_decode_as_they_did():
    from omni_smola.data.builders.mini_suite import ingredients

    root = ingredients.package_folder("easy_vqa", "easy-vqa") / "data"
    files = sorted(root.glob("*/images/*.png"))
    assert len(files) == 5000
    for path in files[::10]:
        with Image.open(path) as image:
            before = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(images.decode(path.read_bytes()), before)


def test_a_higher_limit_goes_on_with_a_run():
    from omni_smola import config as configs
    from omni_smola.training.model import identity

    config = configs.defaults()
    assert config.data.max_pixels == images.MAX_PIXELS
    before = identity(config, "")
    config.data.max_pixels *= 2
    assert identity(config, "") == before
    config.data.prompt_length += 1
    assert identity(config, "") != before


def test_a_limit_reaches_training_evaluation_and_prediction(write_folder):
    from omni_smola.data import ask, framing, tasks
    from omni_smola.data import vocabulary as vocabularies
    from omni_smola.data.pipeline import eval_batches, train_batches

    record = {"image": "a.png", "captions": ["x"]}  # 40 x 20 pixels
    path = write_folder("limit", train=[record], val=[record])
    sizes = dict(prompt_length=8, resolution=SIDE, max_pixels=799)
    many = sizes | dict(target_length=8, batch_size=1)
    with pytest.raises(UserError, match=r"line 1: .*limit of 799"):
        tasks.register({"limit": str(path)}, max_pixels=799)
    tasks.register({"limit": str(path)})
    frame = framing.load("auto", vocabularies.load(None))
    for use in (
        lambda: next(train_batches({"limit": 1.0}, seed=0, **many)),
        lambda: next(eval_batches("limit", "validation", **many)),
        lambda: ask.make_batch(str(path / "a.png"), "x", framing=frame, **sizes),
    ):
        with pytest.raises(UserError, match=r"a\.png.* 40 x 20 = 800 .*limit of 799.*max_pixels"):
            use()


def test_no_tensorflow_is_needed(run_python):
    code = "import sys; from omni_smola.data import images; assert 'tensorflow' not in sys.modules"
    done = run_python(code)
    assert done.returncode == 0, done.stderr
