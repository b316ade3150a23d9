"""Damaged and odd images end in pixels or in one sentence, within seconds and 2 GB of memory."""

import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import numpy as np

from omni_smola.data.image_folder import ImageFolder
from omni_smola.errors import UserError

from .conftest import png
from .odd_images import CASES, SIDE

ROOT = pathlib.Path(__file__).parents[2]
COUNT = int(os.environ.get("OMNI_SMOLA_FUZZ", "1000"))  # images
_SPEC = importlib.util.spec_from_file_location("fuzz", ROOT / "tests/fuzz.py")
fuzz = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fuzz)

# In a process of its own, so that its memory is that of the images alone.
_PROGRAM = """
import faulthandler, json, sys
import numpy as np
sys.path[:0] = ["tests", "tests/data"]
import fuzz, odd_images
from omni_smola.data import images
from omni_smola.errors import UserError

rng = np.random.default_rng(int(sys.argv[1]))
names = list(odd_images.CASES)
damaged = {name: fuzz.mutations(odd_images.CASES[name][0], rng) for name in names}
counts, odd = {"pixels": 0, "sentences": 0}, []

def use(read, encoded):
    try:
        return read(encoded)
    except UserError as error:
        text = str(error)
        if "\\n" in text or len(text) > 500:
            odd.append([name, text])
    except BaseException as error:
        odd.append([name, encoded.hex()[:400], repr(error)[:300]])

for i in range(int(sys.argv[2])):
    name = names[i % len(names)]
    encoded = next(damaged[name])
    faulthandler.dump_traceback_later(60, exit=True)  # a hang ends with where it was
    pixels, size = use(images.decode, encoded), use(images.size, encoded)
    counts["sentences" if pixels is None else "pixels"] += 1
    if pixels is not None and (pixels.dtype != np.uint8 or pixels.shape != (*size[::-1], 3)):
        odd.append([name, encoded.hex()[:400], f"{size}, {pixels.shape}"])
print(json.dumps({"counts": counts, "odd": odd[:20], "megabytes": fuzz.peak_megabytes()}))
"""


def test_damaged_images_end_in_pixels_or_a_sentence():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PROGRAM, "15", str(COUNT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["odd"], found["odd"]
    # Both ends are met, or else the damage is none, or nothing but damage.
    assert min(found["counts"].values()) > COUNT / 10, found
    assert found["megabytes"] < 2000, found


def sentence(error: UserError) -> bool:
    return "\n" not in str(error) and len(str(error)) < 700


def test_training_evaluation_and_prediction_agree_about_them(tmp_path):
    from omni_smola.data import ask, framing, tasks
    from omni_smola.data import vocabulary as vocabularies
    from omni_smola.data.damage import Damage
    from omni_smola.data.pipeline import eval_batches, train_batches

    rng = np.random.default_rng(4)
    names = list(CASES)[::2]
    for name in names:
        (tmp_path / name).write_bytes(next(fuzz.mutations(CASES[name][0], rng)))
    lines = [json.dumps({"id": name, "image": name, "captions": [name]}) for name in names]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    tasks.register({"odd": str(tmp_path)}, on_error="skip")
    sizes = dict(batch_size=len(names), prompt_length=8, target_length=8, resolution=SIDE)
    damage = Damage(lambda text: None)
    ((batch, examples),) = eval_batches("odd", "validation", damage=damage, **sizes)
    whole = {example["id"]: batch["image"][i] for i, example in enumerate(examples)}
    assert 5 < len(whole) < len(names) - 5
    assert damage.rows == len(names) - len(whole)
    assert all("its image does not decode: " in what for what in damage.examples.values())

    trained = next(train_batches({"odd": 1.0}, seed=0, damage=Damage(lambda text: None), **sizes))
    kept = trained["image"][trained["image_mask"]]
    assert sorted(i.tobytes() for i in kept) == sorted(i.tobytes() for i in whole.values())

    common = dict(
        framing=framing.load("auto", vocabularies.load(None)), prompt_length=8, resolution=SIDE
    )
    for name in names:
        try:
            asked = ask.make_batch(str(tmp_path / name), "what?", **common)["image"][0]
        except UserError as error:
            assert name not in whole and sentence(error) and name in str(error)
        else:
            np.testing.assert_array_equal(asked, whole[name])


def test_damaged_tars_end_in_bytes_or_a_sentence(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("a.png", "img/" * 40 + "b.png"):
            info = tarfile.TarInfo(name)
            data = png((1, 2, 3))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, kind in (("c.png", tarfile.SYMTYPE), ("d.png", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.png"
            archive.addfile(info)
    ends = {"bytes": 0, "sentence": 0}
    damaged = fuzz.mutations(out.getvalue(), np.random.default_rng(5))
    for _ in range(COUNT // 5):
        (tmp_path / "images.tar").write_bytes(next(damaged))
        try:
            folder = ImageFolder(tmp_path)
        except UserError as error:
            assert sentence(error)
            ends["sentence"] += 1
            continue
        for name in ("a.png", "img/" * 40 + "b.png", "c.png", "d.png"):
            try:
                folder.read(name)
                ends["bytes"] += 1
                folder.size(name)
            except UserError as error:
                assert sentence(error)
                ends["sentence"] += 1
    assert min(ends.values()) > 20, ends
