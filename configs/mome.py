"""MoME (arXiv 2407.12709): a mixture of vision experts and one of language experts.

Arguments after the colon, all optional; together they make every row of the paper's tables:
  vision      three, or one of its encoders alone (semantic, spatial, reading), or names joined by +
  transform   adt, average, cross_attention: how each encoder's map becomes visual tokens
  aggregate   router, addition
  language    adapter, mole_instance, mole_token, mole_both, mole_instance_gumbel,
              mole_instance_balance, none
  tasks       as in pali_smola.py
  smola       visual-text-multimodal experts of Omni-SMoLA on the same backbone; 0-0-0 is none
  stage_1     workdir of a finished `language=adapter` run of the same vision to start from; by
              default a MoLE run trains that stage first, in stage_1/ of its own workdir
"""

import ml_collections

from omni_smola import config as configs
from omni_smola.errors import UserError

VISION = {"three": "semantic+spatial+reading"}
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
        vision="three",
        transform="adt",
        aggregate="router",
        language="mole_instance",
        tasks="full",
        smola="0-0-0",
        stage_1="",
    )
    if arg.language not in LANGUAGE:
        raise UserError(
            f"language={arg.language} is not one of the language experts {', '.join(LANGUAGE)}."
        )
    config = configs.defaults()
    config.name = "mome"
    config.vision.encoders = VISION.get(arg.vision, arg.vision)
    config.vision.transform = arg.transform
    config.vision.aggregate = arg.aggregate
    config.language.update(LANGUAGE[arg.language])
    config.language.stage_1 = arg.stage_1
    experts = config.experts
    experts.visual, experts.text, experts.multimodal = configs.parse_experts(arg.smola)
    experts.method = "smola" if any(configs.parse_experts(arg.smola)) else "none"
    configs.set_tasks(config, arg.tasks)
    config.optimizer.learning_rate = 2e-3
    config.optimizer.b2 = 0.999
    config.optimizer.weight_decay = 0.05
    # Without its visual part the language model alone is no baseline worth the minutes.
    config.eval.baseline = False
    config.steps = 400
    if config.language.experts > 1 and not arg.stage_1:
        config.language.stage_1_steps = 300
        config.steps = 150
    return config
