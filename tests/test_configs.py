"""Every file in configs/, the arguments after its colon, and the models that the names mean."""

import collections
import dataclasses
import pathlib
import runpy

import jax
import jax.numpy as jnp
import ml_collections
import pytest
from flax import nnx

from omni_smola import config as configs
from omni_smola.errors import UserError
from omni_smola.models import build, shapes
from omni_smola.pretrained import native
from omni_smola.training import model as run_model
from omni_smola.training import state as states

FOLDER = pathlib.Path(__file__).parent.parent / "configs"
FILES = sorted(path.name for path in FOLDER.glob("*.py"))


def get_config(file: str, arg: str | None = None) -> ml_collections.ConfigDict:
    return runpy.run_path(str(FOLDER / file))["get_config"](arg)


@pytest.mark.parametrize("file", FILES)
def test_every_config_is_complete_and_passes_the_door(file, tmp_path):
    config = get_config(file, f"folders={tmp_path}" if file == "own_data.py" else None)
    defaults = configs.defaults()
    assert config.keys() == defaults.keys()
    for group, fields in defaults.items():
        if isinstance(fields, ml_collections.ConfigDict) and group != "data":
            assert config[group].keys() == fields.keys(), group
    configs.check(config)
    build.check_experts(config.experts)
    build.check_mome(config.vision, config.language)
    assert len(config.data.rates) >= 1
    assert config.name.startswith(file.removesuffix(".py")[:8])
    assert config.optimizer.warmup <= config.steps


def test_the_default_is_the_main_job():
    config = get_config("pali_smola.py")
    assert (config.backbone.name, config.backbone.init) == ("tiny", "shipped")
    assert config.experts.method == "smola"
    assert set(config.data.rates) == set(configs.MIXTURES["full"])
    assert config.eval.baseline and config.eval.split == "test"


def test_the_arguments_of_the_main_job():
    config = get_config("pali_smola.py", "backbone=pali3,experts=16-8-4,rank=2,res=812,tasks=vqa")
    assert (config.backbone.name, config.backbone.resolution) == ("pali3", 812)
    experts = config.experts
    assert (experts.visual, experts.text, experts.multimodal, experts.rank) == (16, 8, 4, 2)
    assert set(config.data.rates) == set(configs.MIXTURES["vqa"])
    assert set(config.data.rates.values()) == {1.0}
    # The large backbones were never released: no file of theirs can be shipped.
    assert config.backbone.init == "random" and config.backbone.param_dtype == "bfloat16"
    named = get_config("pali_smola.py", "tasks=mini_box+mini_count")
    assert list(named.data.rates) == ["mini_box", "mini_count"]


@pytest.mark.parametrize("method", ["none", "lora", "adapter", "full"])
def test_baselines_differ_from_the_main_job_in_what_is_trained_only(method):
    config, main = get_config("baselines.py", f"method={method}"), get_config("pali_smola.py")
    assert config.experts.method == method
    same = ("data", "backbone", "batch_size", "seed", "decode", "loss", "accumulate")
    assert all(config[field] == main[field] for field in same)
    assert config.steps == (0 if method == "none" else main.steps)
    assert config.eval.examples == main.eval.examples and config.eval.split == main.eval.split
    ranked = get_config("baselines.py", f"method={method},rank=3")
    assert ranked.experts.rank == 3 and config.experts.rank != 3


def test_a_mole_run_trains_its_first_stage_unless_one_is_named():
    config = get_config("mome.py")
    assert config.language.experts == 4 and config.language.stage_1_steps > 0
    config = get_config("mome.py", "stage_1=runs/first")
    assert (config.language.stage_1, config.language.stage_1_steps) == ("runs/first", 0)
    config = get_config("mome.py", "language=adapter,vision=spatial,transform=average")
    assert (config.language.experts, config.language.stage_1_steps) == (1, 0)
    assert (config.vision.encoders, config.vision.transform) == ("spatial", "average")
    config = get_config("mome.py", "smola=4-2-1")
    experts = config.experts
    assert (experts.method, experts.visual, experts.multimodal) == ("smola", 4, 1)


@pytest.mark.parametrize(
    ("name", "language", "widths"),
    [
        ("vicuna_7b", 6_738_415_616, {"clip_l14": 1024, "dinov2_large": 1024}),
        ("tinyllama_1b", 1_100_048_384, {"clip_l14": 1024, "dinov2_small": 384}),
    ],
)
def test_momes_published_composition_is_one_argument(name, language, widths):
    """Parameters as Llama 2 7B's and TinyLlama's own cards count them."""
    config = get_config("mome.py", f"backbone={name},settings=paper")
    build.check_mome(config.vision, config.language)
    model = nnx.eval_shape(lambda: build.backbone(config.backbone, nnx.Rngs(0), config.vision))
    counts = collections.Counter()
    for path, leaf in nnx.to_pure_dict(nnx.state(model)).items():
        counts[path] = sum(x.size for x in jax.tree.leaves(leaf))
    assert counts["embedding"] + counts["decoder"] + counts["head"] == language
    found = {name: encoder.width for name, encoder in model.encoders.items()}
    assert found == widths | {"pix2struct_base": 768}
    assert set(build.views(config.vision)) == set(found)
    assert config.data.mixing == "group" and config.data.prompts == "instruction"
    assert config.batch_size == 64 and config.language.stage_1_steps == config.steps == 30_000


@pytest.mark.parametrize(
    ("name", "language"), [("smollm2_135m", 134_515_008), ("tinyllama_1b", 1_100_048_384)]
)
def test_momes_laptop_settings(name, language):
    """Parameters as SmolLM2's and TinyLlama's own cards count them; two encoders, 36 tokens."""
    config = get_config("mome.py", f"backbone={name},language=adapter,folders=cats")
    build.check_mome(config.vision, config.language)
    model = nnx.eval_shape(lambda: build.backbone(config.backbone, nnx.Rngs(0), config.vision))
    state = nnx.to_pure_dict(nnx.state(model))
    parts = [state[part] for part in ("embedding", "decoder", "head") if part in state]
    assert sum(x.size for x in jax.tree.leaves(parts)) == language
    views = build.views(config.vision)
    assert {name: view.size for name, view in views.items()} == {
        "semantic": 96,
        "dinov2_small@168": 168,
    }
    assert config.vision.side == 6 and not config.vision.plain
    assert not config.backbone.remat and config.backbone.dtype == "float32"
    assert config.data.prompt_length == config.data.target_length == 32
    assert (config.optimizer.warmup, config.optimizer.learning_rate) == (20, 1e-3)
    assert config.optimizer.warmup < config.steps


def test_mome_reads_sizes_from_a_checkpoint():
    config = get_config("mome.py", "backbone=auto,folders=cats")
    assert config.backbone.name == "auto" and config.vision.encoders == "semantic+dinov2_small@168"
    with pytest.raises(UserError, match=r"name is auto, but backbone\.init is 'shipped'"):
        run_model.abstract_model(config, None)
    for bad in ("backbone=auto,settings=fast", "settings=laptop"):
        with pytest.raises(UserError, match="is neither laptop nor paper"):
            get_config("mome.py", bad)


def test_mome_looks_at_folders_of_ones_own():
    config = get_config("mome.py", "folders=cats+sub/dogs")
    assert (
        dict(config.data.rates)
        == {"cats": 1.0, "dogs": 1.0}
        == dict.fromkeys(config.data.sources, 1.0)
    )
    assert config.language.stage_1_steps > 0 and config.data.prompt_length == 32
    assert "mini_box" in get_config("mome.py", "folders=cats,tasks=mini_box").data.rates
    # The published schedule has longer texts.
    assert get_config("mome.py", "backbone=vicuna_7b,folders=cats").data.prompt_length == 128


def test_momes_public_weights_must_be_named():
    with pytest.raises(UserError, match="'clip_l14' are shipped, only of semantic, spatial"):
        native.tower(get_config("mome.py", "backbone=vicuna_7b").vision.init, "clip_l14")
    with pytest.raises(UserError, match="backbone=vicuna is not one of tiny, vicuna_7b"):
        get_config("mome.py", "backbone=vicuna")


def test_the_second_stage_of_pretraining_goes_on_from_the_first():
    first, second = (get_config("pali_pretrain.py", f"stage={stage}") for stage in (1, 2))
    assert first.backbone.init == "random" and second.backbone.init == first.export
    assert set(second.data.rates) - set(first.data.rates) == {"pretrain_box"}


def test_own_data_makes_a_task_of_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = get_config("own_data.py", "folders=cats+sub/dogs/,tasks=mini_box,rank=2")
    assert config.data.sources.to_dict() == {
        "cats": str(tmp_path / "cats"),
        "dogs": str(tmp_path / "sub" / "dogs"),
    }
    assert list(config.data.rates) == ["cats", "dogs", "mini_box"]
    assert config.experts.rank == 2


@pytest.mark.parametrize(
    ("file", "arg", "sentence"),
    [
        (
            "pali_smola.py",
            "rnk=4",
            r"'rnk=4' is not .* backbone, experts, rank.*mean rank=",
        ),
        ("pali_smola.py", "big", r"'big' is not one of name=value"),
        ("pali_smola.py", "rank=x", r"rank=x needs a value of type int, such as rank=4"),
        ("pali_smola.py", "experts=16", r"experts=16 is not .*visual-text-multimodal.*16-16-16"),
        ("pali_smola.py", "experts=1-2-x", r"experts=1-2-x is not"),
        ("pali_smola.py", "experts=-1-2-3", r"experts=-1-2-3 is not"),
        ("pali_smola.py", "experts=\u00b2-1-1", r"experts=.-1-1 is not"),
        ("baselines.py", "method=lora,size=3", r"'size=3' is not .* method, rank, tasks"),
        ("own_data.py", "folders=a/x+b/x", r"Two of the folders are called 'x': rename one"),
        ("pali_pretrain.py", "rank=4", r"'rank=4' is not"),
        ("pali_pretrain.py", "stage=3", r"stage=3 is not one of the stages"),
        ("mome.py", "language=mole", r"language=mole is not one of .*adapter, mole_instance"),
        ("pali_smola.py", "tasks=mini_vqa+a.b", r"tasks=mini_vqa\+a.b: 'a.b' is no name of a"),
        ("mome.py", "smola=8", r"experts=8 is not of the form"),
        ("vision_pretrain.py", "encoder=clip", r"encoder=clip is not one of .*semantic, spatial"),
    ],
)
def test_a_wrong_argument_is_a_sentence(file, arg, sentence):
    with pytest.raises(UserError, match=sentence):
        get_config(file, arg)


def test_arguments_get_the_type_of_their_default():
    values = configs.parse_arg("a=3,b=0.5,c=true,d=x=y", a=1, b=1.0, c=False, d="", e=7)
    assert values.to_dict() == {"a": 3, "b": 0.5, "c": True, "d": "x=y", "e": 7}
    assert configs.parse_arg(None, a=1).to_dict() == {"a": 1}
    assert configs.parse_arg("", a=1).to_dict() == {"a": 1}
    with pytest.raises(UserError, match=r"c=maybe needs a value of type bool, such as c=False"):
        configs.parse_arg("c=maybe", c=False)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("steps", -1, r"config.steps is -1, but it must be 0 or more: set --config.steps=0"),
        ("batch_size", 0, r"config.batch_size is 0, but it must be 1 or more"),
        ("data.max_pixels", 0, r"config.data.max_pixels is 0, but it must be 1 or more"),
        ("data.prompt_length", 1, r"config.data.prompt_length is 1, but it must be 2"),
        ("optimizer.learning_rate", -0.1, r"config.optimizer.learning_rate is -0.1"),
        ("eval.examples", -4, r"config.eval.examples is -4"),
        ("checkpoint.every", 0, r"config.checkpoint.every is 0"),
        ("optimizer.learning_rate", float("nan"), r"learning_rate is nan, but it must be 0 or"),
        ("loss.label_smoothing", 1.0, r"label_smoothing is 1.0, but .* below 1"),
        ("backbone.dtype", "float16", r"backbone.dtype is 'float16': choose float32 or bfloat16"),
    ],
)
def test_a_number_out_of_range_is_a_sentence(field, value, sentence):
    config = configs.defaults()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=sentence):
        configs.check(config)


@pytest.mark.parametrize(
    ("arg", "experts"),
    [
        # The example, and PaLI-X with as many experts as Omni-SMoLA's 48.
        ("backbone=pali3,experts=16-16-16,rank=4,res=812,tasks=full", 24 * 7),
        ("backbone=palix,experts=16-16-16,rank=4,tasks=full", 50 * 7),
    ],
)
def test_large_models_are_made_abstractly_with_their_experts(arg, experts):
    config = get_config("pali_smola.py", arg)
    attached = []

    def make():
        model = build.backbone(config.backbone, nnx.Rngs(0))
        attached[:] = build.attach_experts(model, config.experts, nnx.Rngs(1))
        return model

    abstract = nnx.eval_shape(make)
    _, trainable, frozen = states.divide(abstract, build.trainable_filter(config.experts))
    layers = shapes.pali(config.backbone.name).language.encoder_layers
    assert len(attached) * layers == experts
    assert all(path.startswith("encoder/") for path in attached)
    leaves = states.paths(trainable)
    assert all(leaf.dtype == jnp.float32 for leaf in leaves.values())
    assert {leaf.dtype for leaf in jax.tree.leaves(frozen)} == {jnp.dtype(jnp.bfloat16)}
    w_in = [leaf for path, leaf in leaves.items() if path.endswith("experts/w_in")]
    assert w_in and all(leaf.shape[0] == layers and leaf.shape[-1] == 4 for leaf in w_in)
    assert all(leaf.shape[2] == 48 for leaf in w_in)  # slots of the three sets together
    share = states.count(trainable) / states.count(frozen)
    assert 0.001 < share < 0.1
    if config.backbone.resolution:
        assert abstract.config.vision.image_size == config.backbone.resolution


def test_resolutions_tile():
    backbone = configs.defaults().backbone
    own = build.sizes(backbone)
    backbone.resolution = 48
    assert build.sizes(backbone) == dataclasses.replace(
        own, vision=dataclasses.replace(own.vision, image_size=48)
    )
    for resolution in (50, -12):
        backbone.resolution = resolution
        with pytest.raises(UserError, match=rf"resolution is {resolution}.* patches of 12 pixels"):
            build.sizes(backbone)
