"""Views: grids against exact arithmetic, pixels against Pillow and numpy, and the batches."""

import io
import itertools
import json
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from omni_smola import views
from omni_smola.data import ask, images, tasks
from omni_smola.data import vocabulary as vocabularies
from omni_smola.data.features import decode_views
from omni_smola.data.framing import load
from omni_smola.data.pipeline import eval_batches, train_batches
from omni_smola.errors import UserError
from omni_smola.views import Patches, Square

SIZES = {"batch_size": 4, "prompt_length": 16, "target_length": 12, "resolution": 24}
VIEWS = {
    "wide": Square(40),
    "same": Square(24),
    "soft": Square(16, method="bicubic", antialias=False),
    "read": Patches(patch=4, max_patches=30),
    "bytes": Patches(patch=8, max_patches=6, standardize=False),
}


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8: smooth, but nowhere flat."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 4 + 2, width // 4 + 2, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC))


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def see(pixels: np.ndarray, view: views.View) -> list[np.ndarray]:
    """The view's arrays of one image."""
    seen = decode_views(tf.constant(png(pixels)), 8, {"v": view})
    return [seen[name].numpy() for name in view.fields("v")]


# The grid of Pix2Struct.


@pytest.mark.parametrize("budget", [1, 7, 144, 2048])
def test_a_grid_is_as_large_as_the_budget_and_the_aspect_ratio_allow(budget):
    view = Patches(patch=16, max_patches=budget)
    rng = np.random.default_rng(0)
    sizes = [*rng.integers(1, 2000, (500, 2)), (1, 5000), (5000, 1), (96, 96), (48, 96), (1, 1)]
    for height, width in sizes:
        for got, long, short in zip(
            view.grid(height, width), (height, width), (width, height), strict=True
        ):
            exact = min(max(math.isqrt(budget * int(long) // int(short)), 1), budget)
            whole = exact**2 * short == budget * long
            # Where the root is a whole number, floating point may fall just below it.
            assert got == exact or (whole and got == exact - 1)
        assert math.prod(view.grid(height, width)) <= budget


def test_grids_of_everyday_images():
    assert Patches().grid(480, 640) == (39, 52)
    assert Patches().grid(640, 480) == (52, 39)
    assert Patches().grid(1, 10**6) == (1, 2048)
    assert Patches(8, 144).grid(96, 96) == (12, 12)


# Pixels.


@pytest.mark.parametrize(
    ("method", "resample"), [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)]
)
@pytest.mark.parametrize("size", [20, 100])
def test_a_square_is_pillows(method, resample, size):
    pixels = photo(45, 77) // 2 + 64  # Pillow clips between its two passes; here nothing does
    (got,) = see(pixels, Square(size, method=method))
    want = np.asarray(Image.fromarray(pixels).resize((size, size), resample))
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - want).max() <= 1


def test_without_antialias_only_the_nearest_pixels_count():
    pixels = photo(16, 16)
    (got,) = see(pixels, Square(4, antialias=False))
    # The centre of every 4 x 4 block lies between its four inner pixels.
    inner = pixels.reshape(4, 4, 4, 4, 3)[:, 1:3, :, 1:3].astype(float).mean(axis=(1, 3))
    assert np.abs(got - inner).max() <= 0.5
    (other,) = see(pixels, Square(4))
    assert np.abs(other - inner).max() > 1


def test_patches_are_row_major_and_padding_is_last():
    pixels = photo(3 * 4, 5 * 4)  # a grid of 3 x 5 patches, so nothing is resized
    patches, sizes = see(pixels, Patches(patch=4, max_patches=17, standardize=False))
    np.testing.assert_array_equal(sizes, [3, 5])
    assert patches.dtype == np.uint8
    for row, column in itertools.product(range(3), range(5)):
        cut = pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        np.testing.assert_array_equal(patches[row * 5 + column], cut.reshape(-1))
    np.testing.assert_array_equal(patches[15:], 0)


def triangle(before: int, after: int) -> np.ndarray:
    """(after, before) float64: the weights of antialiased bilinear resizing along one axis."""
    widened = max(before / after, 1)
    centre = (np.arange(after)[:, None] + 0.5) * before / after
    weights = np.maximum(0, 1 - np.abs(np.arange(before) + 0.5 - centre) / widened)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("shape", [(37, 61), (61, 37), (7, 90), (12, 13)])
def test_patches_of_an_odd_aspect_ratio_equal_numpy(shape):
    pixels, view = photo(*shape), Patches(patch=4, max_patches=30)
    patches, (rows, columns) = see(pixels, view)
    assert (rows, columns) == view.grid(*shape)
    x = pixels.astype(np.float64)
    x = (x - x.mean()) / x.std()
    x = np.einsum(
        "ih,jw,hwc->ijc", triangle(shape[0], 4 * rows), triangle(shape[1], 4 * columns), x
    )
    want = x.reshape(rows, 4, columns, 4, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 48)
    np.testing.assert_allclose(patches[: rows * columns], want, rtol=0, atol=2e-5)
    assert not patches[rows * columns :].any()


def test_a_flat_image_is_zero_and_a_nearly_flat_one_is_not_blown_up():
    flat = np.full((8, 8, 3), 77, np.uint8)
    assert np.abs(see(flat, Patches(4, 4))[0]).max() < 1e-3
    flat[0, 0, 0] += 1
    patches, _ = see(flat, Patches(4, 4))
    # The deviation of one level in n values is sqrt(n - 1) / n, just below the least, 1 / sqrt(n).
    n = flat.size
    np.testing.assert_allclose(patches[0, 0], (1 - 1 / n) * math.sqrt(n), rtol=1e-4)


# Batches.


@pytest.fixture
def drawn(write_folder):
    """Registers 'drawn': five images of five shapes and an example without one."""
    common = {"question": "what?", "choices": ["this", "that"], "answer": 1}
    records = [{"image": f"img/{i}.png", **common} for i in range(6)]
    folder = write_folder("drawn", train=records, val=records[:3])
    shapes = [(24, 24), (30, 50), (51, 30), (9, 80), (64, 64)]
    for i, shape in enumerate(shapes):
        (folder / f"img/{i}.png").write_bytes(png(photo(*shape, seed=i)))
    records[5]["image"] = None
    for split, of_split in (("train", records), ("val", records[3:])):
        lines = [json.dumps(record) for record in of_split]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    tasks.register({"drawn": str(folder)})
    return folder


def stream(count, **options):
    options = {"seed": 0, "views": VIEWS} | SIZES | options
    return list(itertools.islice(train_batches({"drawn": 1.0}, **options), count))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_every_view_adds_the_fields_it_names_and_changes_no_other(drawn):
    seen, plain = stream(3), stream(3, views=None)
    for with_views, without in zip(seen, plain, strict=True):
        assert with_views.keys() == without.keys() | views.fields(VIEWS).keys()
        assert_same({name: with_views[name] for name in without}, without)
    layout = {name: (value.shape, value.dtype.name) for name, value in seen[0].items()}
    for name, field in views.fields(VIEWS).items():
        assert layout[name] == ((4, *field.shape), field.dtype)
    assert set(views.fields(VIEWS)) == {
        *("image:wide", "image:same", "image:soft"),
        *("patches:read", "sizes:read", "patches:bytes", "sizes:bytes"),
    }
    assert views.fields(None) == {}
    np.testing.assert_array_equal(seen[0]["image:same"], seen[0]["image"])


def test_every_row_is_the_view_of_its_own_image(drawn):
    pixels = [photo(*s, seed=i) for i, s in enumerate([(24, 24), (30, 50), (51, 30), (9, 80)])]
    found = set()
    for batch in stream(3):
        for row in range(4):
            for i, image in enumerate(pixels):
                wide, (read, sizes) = see(image, VIEWS["wide"])[0], see(image, VIEWS["read"])
                if np.array_equal(batch["image:wide"][row], wide):
                    np.testing.assert_array_equal(batch["sizes:read"][row], sizes)
                    np.testing.assert_allclose(batch["patches:read"][row], read, atol=1e-5)
                    found.add(i)
    assert found == set(range(4))


def test_an_example_without_an_image_has_zeros_and_no_patches(drawn):
    rows = 0
    for batch in stream(3):
        absent = ~batch["image_mask"]
        rows += absent.sum()
        for name in views.fields(VIEWS):
            assert not batch[name][absent].any()
        assert batch["sizes:read"][~absent].all()
    assert rows == 2  # two epochs of six examples


def test_an_image_is_decoded_once(drawn, monkeypatch):
    own = [png(photo(30, 50, seed=seed)) for seed in (13, 14)]
    for i, encoded in enumerate(own, start=3):  # of three examples one has no image
        (drawn / f"img/{i}.png").write_bytes(encoded)
    decoded = []
    original = images.decode
    monkeypatch.setattr(images, "decode", lambda *a: decoded.append(a[0]) or original(*a))
    list(eval_batches("drawn", "validation", views=VIEWS, **SIZES))
    # The streams of other tests read ahead in the background.
    assert sorted(encoded for encoded in decoded if encoded in own) == sorted(own)


def test_the_stream_with_views_hangs_on_seed_and_step_alone(drawn):
    whole = stream(5)
    for one, other in zip(whole, stream(5), strict=True):
        assert_same(one, other)
    for one, other in zip(whole[3:], stream(2, start_step=3), strict=True):
        assert_same(one, other)
    halves = [stream(2, host_index=i, host_count=2) for i in range(2)]
    for step, parts in enumerate(zip(*halves, strict=True)):
        joined = {name: np.concatenate([part[name] for part in parts]) for name in whole[0]}
        assert_same(whole[step], joined)


def test_evaluation_has_the_views_and_fills_up_with_zeros(drawn):
    ((batch, examples),) = eval_batches("drawn", "validation", views=VIEWS, **SIZES)
    assert len(examples) == 3
    np.testing.assert_array_equal(batch["sizes:read"][:2], [VIEWS["read"].grid(9, 80), (5, 5)])
    for name, field in views.fields(VIEWS).items():
        assert batch[name].shape == (4, *field.shape)
        assert batch[name].dtype.name == field.dtype
        assert not batch[name][2:].any()  # no image, then a row that only fills


def test_a_question_from_the_command_line_has_them_too(drawn):
    common = dict(prompt_length=16, resolution=24, framing=load("auto", vocabularies.load(None)))
    batch = ask.make_batch(str(drawn / "img/3.png"), "what?", rows=2, views=VIEWS, **common)
    ((want, _),) = eval_batches("drawn", "validation", views=VIEWS, limit=1, **SIZES)
    for name in ("image", *views.fields(VIEWS)):
        for row in range(2):
            np.testing.assert_array_equal(batch[name][row], want[name][0], err_msg=name)
    blind = ask.make_batch(None, "what?", views=VIEWS, **common)
    assert {name: (value.shape[1:], value.dtype) for name, value in blind.items()} == {
        name: (value.shape[1:], value.dtype) for name, value in batch.items()
    }
    assert not any(blind[name].any() for name in ("image", "image_mask", *views.fields(VIEWS)))
    plain = ask.make_batch(str(drawn / "img/3.png"), "what?", rows=2, **common)
    assert_same(plain, {name: batch[name] for name in plain})


def test_an_image_that_does_not_decode_is_still_named(drawn):
    path = drawn / "img/1.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"Line 2 of split 'train' .*img/1\.png.* does not decode"):
        stream(3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Square(0), "size of a view is 0; it must be 1 or more"),
        (lambda: Square(8, method="cubic"), "method .* 'cubic': choose one of bilinear, bicubic"),
        (lambda: Patches(patch=0), "patch of a view is 0"),
        (lambda: Patches(max_patches=-1), "max_patches of a view is -1"),
    ],
)
def test_mistakes_are_told(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()
