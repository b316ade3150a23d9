"""MoME (arXiv 2407.12709): a mixture of vision experts and one of language experts.

Arguments after the colon, all optional; together they make every row of the paper's tables:
  backbone    tiny; vicuna_7b, the paper's; smollm2_135m or tinyllama_1b, which a laptop can run;
              auto, any Llama or Gemma whose sizes are in the config.json of --config.backbone.init
  vision      three, or one of its encoders alone (semantic, spatial, reading; of the others
              clip_l14, dinov2_large or dinov2_small, pix2struct_base), or names joined by +, each
              published ViT at a resolution of its own where one is given: semantic+dinov2_small@168
  settings    laptop (float32, short texts, 36 visual tokens) or paper; by default paper for
              vicuna_7b, laptop for the others
  transform   adt, average, cross_attention: how each encoder's map becomes visual tokens
  aggregate   router, addition
  language    adapter, mole_instance, mole_token, mole_both, mole_instance_gumbel,
              mole_instance_balance, none
  tasks       as in pali_smola.py; mome is the paper's suite, and the default but for tiny
  folders     your own data beside the tasks, or in place of them: paths joined by +, as in
              own_data.py
  smola       visual-text-multimodal experts of Omni-SMoLA on the same backbone; 0-0-0 is none
  stage_1     workdir of a finished `language=adapter` run of the same vision to start from; by
              default a MoLE run trains that stage first, in stage_1/ of its own workdir
"""

import ml_collections

from omni_smola import config as configs
from omni_smola.errors import UserError

# What "three" stands for before each language model. On a laptop it is two encoders.
VISION = {
    "tiny": "semantic+spatial+reading",
    "vicuna_7b": "clip_l14+dinov2_large+pix2struct_base",
    "smollm2_135m": "clip_l14+dinov2_small+pix2struct_base",
    "tinyllama_1b": "clip_l14+dinov2_small+pix2struct_base",
    "auto": "clip_l14+dinov2_small+pix2struct_base",
}
LAPTOP_VISION = "semantic+dinov2_small@168"
EXPERTS = 4
LANGUAGE = {
    "none": {"experts": 0},
    "adapter": {"experts": 1},
    "mole_instance": {"experts": EXPERTS},
    "mole_token": {"experts": EXPERTS, "route": "token"},
    "mole_both": {"experts": EXPERTS, "route": "both"},
    "mole_instance_gumbel": {"experts": EXPERTS, "gumbel": True},
    "mole_instance_balance": {"experts": EXPERTS, "balance": 0.01},
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The config of one row; see the module's docstring for `arg`."""
    arg = configs.parse_arg(
        arg,
        backbone="tiny",
        vision="three",
        transform="adt",
        aggregate="router",
        language="mole_instance",
        tasks="",
        folders=(),
        smola="0-0-0",
        stage_1="",
        settings="",
    )
    if arg.language not in LANGUAGE:
        raise UserError(
            f"language={arg.language} is not one of the language experts {', '.join(LANGUAGE)}."
        )
    if arg.backbone not in VISION:
        raise UserError(
            f"backbone={arg.backbone} is not one of {', '.join(VISION)}: name one, or auto for the "
            "sizes that the config.json of --config.backbone.init's folder describes."
        )
    paper = arg.backbone == "vicuna_7b" if not arg.settings else arg.settings == "paper"
    if arg.settings not in ("", "laptop", "paper") or (arg.settings and arg.backbone == "tiny"):
        raise UserError(
            f"settings={arg.settings} is neither laptop nor paper, or not for backbone=tiny, which "
            "has its own: leave it out, or choose another backbone."
        )
    config = configs.defaults()
    config.name = "mome"
    config.backbone.name = arg.backbone
    three = VISION[arg.backbone] if paper or arg.backbone == "tiny" else LAPTOP_VISION
    config.vision.encoders = three if arg.vision == "three" else arg.vision
    config.vision.transform = arg.transform
    config.vision.aggregate = arg.aggregate
    config.language.update(LANGUAGE[arg.language])
    config.language.stage_1 = arg.stage_1
    experts = config.experts
    experts.visual, experts.text, experts.multimodal = configs.parse_experts(arg.smola)
    experts.method = "smola" if any(configs.parse_experts(arg.smola)) else "none"
    config.optimizer.b2 = 0.999
    config.optimizer.weight_decay = 0.05
    # Without its visual part the language model alone is no baseline worth the minutes.
    config.eval.baseline = False
    if arg.backbone == "tiny":
        _small(config)
    else:
        _published(config)
        if not paper:
            _laptop(config)
    if arg.tasks or not arg.folders:
        configs.set_tasks(config, arg.tasks or ("full" if arg.backbone == "tiny" else "mome"))
    if arg.folders:
        configs.set_folders(config, arg.folders)
    return config


def _small(config: ml_collections.ConfigDict) -> None:
    """A run of minutes."""
    config.optimizer.learning_rate = 2e-3
    config.steps = 400
    if config.language.experts > 1 and not config.language.stage_1:
        config.language.stage_1_steps = 200
        config.steps = 100


def _published(config: ml_collections.ConfigDict) -> None:
    """The paper's sizes and schedule; weights are named by backbone.init and vision.init."""
    config.data.prompts = "instruction"
    config.data.prompt_length = 128
    config.data.target_length = 64
    config.backbone.dtype = config.backbone.param_dtype = "bfloat16"
    config.backbone.remat = True
    config.vision.update(side=16, layers=6, heads=8, d_ff=1024)
    if "clip_l14" in config.vision.encoders.split("+"):
        # As the authors do: CLIP's 16 x 16 tokens are not transformed, its class token not routed.
        config.vision.plain = config.vision.cls = "clip_l14"
    config.batch_size = 64
    config.steps = 30_000
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup = 1000
    config.checkpoint.every = 1000
    if config.language.experts > 1 and not config.language.stage_1:
        config.language.stage_1_steps = 30_000


def _laptop(config: ml_collections.ConfigDict) -> None:
    """What two CPU cores can run: short texts, few visual tokens, a run of hundreds of steps.

    A processor multiplies bfloat16 slowly, but TinyLlama's weights are kept in it to save memory.
    """
    config.data.prompt_length = config.data.target_length = 32
    config.backbone.dtype = "float32"
    large = config.backbone.name == "tinyllama_1b"
    config.backbone.param_dtype = "bfloat16" if large else "float32"
    config.backbone.remat = False
    config.vision.update(side=6, layers=2, heads=4, d_ff=512, plain="", cls="")
    config.batch_size = 8
    config.steps = 400
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup = 20
    config.checkpoint.every = 100
    config.eval.batch_size = 16
    if config.language.experts > 1 and not config.language.stage_1:
        config.language.stage_1_steps = 200
        config.steps = 100
