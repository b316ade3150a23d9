"""Whole runs on public checkpoints, as transformers writes them: train, evaluate, answer."""

import json
import pathlib
import runpy
import shutil

import numpy as np
import pytest
from flax import nnx
from PIL import Image

import omni_smola as smola
from omni_smola import modes
from omni_smola.data import ask, framing, vocabulary
from omni_smola.errors import UserError
from omni_smola.models import backbones
from omni_smola.pretrained import backbones as public
from omni_smola.run import Run

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

ROOT = pathlib.Path(__file__).parents[2]
VOCABULARY = 3072
STACK = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
TOWER = {
    "model_type": "siglip_vision_model",
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "vision_use_head": False,
}


def t5gemma2():
    layers = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    stack = STACK | layers | {"query_pre_attn_scalar": 8}
    encoder = {
        "text_config": stack,
        "vision_config": TOWER,
        "mm_tokens_per_image": 4,
        "boi_token_index": 3000,
        "eoi_token_index": 3001,
    }
    config = transformers.T5Gemma2Config(encoder=encoder, decoder=stack, image_token_index=3002)
    return transformers.T5Gemma2ForConditionalGeneration(config)


def paligemma():
    config = transformers.PaliGemmaConfig(
        text_config=STACK | {"model_type": "gemma", "hidden_activation": "gelu_pytorch_tanh"},
        vision_config=TOWER | {"projection_dim": 16},
        projection_dim=16,
        image_token_index=3002,
    )
    return transformers.PaliGemmaForConditionalGeneration(config)


def llama():
    config = transformers.LlamaConfig(**STACK, bos_token_id=2, tie_word_embeddings=False)
    return transformers.LlamaForCausalLM(config)


MODELS = {"t5gemma2": t5gemma2, "paligemma": paligemma, "llama": llama}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """name -> a Hugging Face folder of a tiny model of that kind, with the package's tokenizer."""
    root = tmp_path_factory.mktemp("public")
    for name, make in MODELS.items():
        torch.manual_seed(0)
        make().save_pretrained(root / name)
        (root / name / "generation_config.json").unlink(missing_ok=True)
        vocabulary = ROOT / "omni_smola" / "data" / "vocabulary" / "mini.model"
        shutil.copy(vocabulary, root / name / "tokenizer.model")
    return root


def run(folders, workdir, name, file="pali_smola.py", arg="experts=2-2-2,rank=2,tasks=mini_count"):
    config = runpy.run_path(str(ROOT / "configs" / file))["get_config"](arg)
    config.backbone.name = "auto"
    config.backbone.init = str(folders / name)
    config.steps = 2
    config.batch_size = 8
    config.optimizer.warmup = 1
    config.eval.examples = config.eval.batch_size = 8
    config.vision.side = 2
    config.mesh.data = 1
    config.mesh.fsdp = 8
    config.data.data_dir = str(folders / "data")
    return Run(config, str(workdir))


def assert_prompted(opened, frame):
    """No EOS stands between prompt and answer, and the start token stands first."""
    opened.register_tasks()
    batch = next(opened.train_batches(0))
    assert opened.framing.name == frame
    assert not (batch["prompt"] == opened.vocabulary.eos_id).any()
    assert (batch["prompt"][:, 0] == 2).all()
    ends = batch["target_mask"].sum(1) - 1
    assert (batch["target"][range(len(ends)), ends] == opened.framing.end_id).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5gemma2", "paligemma"])
def test_a_public_backbone_is_tuned_evaluated_and_asked(folders, tmp_path, name):
    opened = run(folders, tmp_path / "run", name)
    assert opened.vocabulary.vocab_size == VOCABULARY
    assert_prompted(opened, name)
    report = modes.train(opened)
    assert "mini_count" in report and (tmp_path / "run" / "checkpoints" / "2").is_dir()
    scores = json.loads(next((tmp_path / "run" / "scores").glob("test-smola-2.json")).read_text())
    assert scores["tasks"]["mini_count"]["examples"] == 8
    Image.new("RGB", (20, 30), "red").save(tmp_path / "image.png")
    again = run(folders, tmp_path / "run", name)
    assert isinstance(modes.predict(again, str(tmp_path / "image.png"), "how many?"), str)


@pytest.mark.slow
def test_vision_experts_before_a_decoder_only_language_model(folders, tmp_path):
    arg = "vision=semantic,transform=average,language=adapter,tasks=mini_count"
    opened = run(folders, tmp_path / "run", "llama", "mome.py", arg)
    assert_prompted(opened, "plain")
    assert any(path.startswith("decoder/") for path in opened.model.attached)
    assert "mini_count" in modes.train(opened)


def test_a_language_model_alone_sees_nothing(folders, tmp_path):
    with pytest.raises(UserError, match="sees no image by itself: give it vision experts"):
        run(folders, tmp_path / "run", "llama")


def test_auto_needs_a_checkpoint(folders, tmp_path):
    config = runpy.run_path(str(ROOT / "configs" / "pali_smola.py"))["get_config"]()
    config.backbone.name = "auto"
    with pytest.raises(UserError, match=r"backbone\.init is 'shipped': auto reads the sizes"):
        Run(config, str(tmp_path))
    config.backbone.name = "t5gemma2_tiny"
    config.backbone.init = str(folders / "paligemma")
    with pytest.raises(UserError, match=r"is a 'paligemma' by its config.json, but this backbone"):
        Run(config, str(tmp_path))


@pytest.mark.parametrize(
    ("name", "where"), [("t5gemma2", "encoder/.*"), ("paligemma", ".*/qkv/.*")]
)
def test_a_public_backbone_in_python(folders, tmp_path, name, where):
    model, again = (smola.load_backbone(str(folders / name)) for _ in range(2))
    smola.attach_experts(model, smola.SmolaConfig(1, 1, 1, rank=2), where, rngs=nnx.Rngs(0))
    image = Image.new("RGB", (20, 30), "red")
    batch = smola.make_batch(model, [image, None], ["how many?", "what is it?"], ["2", "a car"])
    assert batch["image"].shape[1:] == (32, 32, 3)
    config = public.read_config(str(folders / name))
    theirs = framing.load("auto", vocabulary.load(folders / name), *backbones.frame(config))
    assert theirs.name == name and batch["frame"].shape == (2, 3)
    image.save(tmp_path / "image.png")
    for row, (file, prompt) in enumerate(
        [(str(tmp_path / "image.png"), "how many?"), (None, "what is it?")]
    ):
        asked = ask.make_batch(
            file, prompt, framing=theirs, prompt_length=batch["prompt"].shape[1], resolution=32
        )
        for field in asked.keys() - {"image"}:  # which is resized here
            np.testing.assert_array_equal(batch[field][row], asked[field][0], err_msg=field)
    loss = nnx.jit(smola.target_loss)(model, batch)
    assert loss.shape == () and 5 < loss < 12  # 8.03 is that of even guesses among 3,072
    card = smola.save_experts(tmp_path / "a.safetensors", model)
    assert card["backbone"]["name"] == str(folders / name)
    smola.load_experts(tmp_path / "a.safetensors", again)
    answers = smola.generate(again, batch, max_length=3)
    assert answers == smola.generate(model, batch, max_length=3) and len(answers) == 2
