"""How the three small vision encoders of configs/mome.py are trained, each to see something else.

Arguments after the colon:
  encoder   semantic: captions of one object, its colour and shape
            spatial: where an object is, as a box
            reading: words and numbers on a page

Each is the tower of a small PaLI that is trained whole, from random weights, on one kind of task.
"""

import ml_collections

from omni_smola import config as configs
from omni_smola.errors import UserError

LESSONS = {
    "semantic": ("pretrain_caption", "pretrain_vqa"),
    "spatial": ("pretrain_box",),
    "reading": ("pretrain_document",),
}
STEPS = {"semantic": 1000, "spatial": 2000, "reading": 1200}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The config of one encoder; see the module's docstring for `arg`."""
    arg = configs.parse_arg(arg, encoder="semantic")
    if arg.encoder not in LESSONS:
        raise UserError(
            f"encoder={arg.encoder} is not one of the vision encoders {', '.join(LESSONS)}."
        )
    config = configs.defaults()
    config.name = f"vision_pretrain_{arg.encoder}"
    config.steps = STEPS[arg.encoder]
    config.backbone.name = f"tiny_{arg.encoder}"
    config.backbone.init = "random"
    configs.set_pretraining(config)
    for task in LESSONS[arg.encoder]:
        config.data.rates[task] = 1.0
    config.data.prompt_length = 16
    config.data.target_length = 16
    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.warmup = 100
    config.export = f"runs/vision/{arg.encoder}.safetensors"
    config.export_part = "vision"
    return config
