"""How the embedded default's small backbone was trained: PaLI `tiny`, from random weights.

Arguments after the colon:
  stage   1: the simpler half of some families (captions of one object, questions of colour and
          shape, reading short pages), and to copy, complete and write text, as PaLI's language
          model comes from UL2
          2: goes on from stage 1, with the box of a single object beside all that

Counting, charts, multiple choice, relations and telling objects apart it never sees.
"""

import ml_collections

from omni_smola import config as configs
from omni_smola.errors import UserError

STAGE_1 = "runs/pali_pretrain/tiny.safetensors"
RATES = {
    1: {"caption": 1.0, "vqa": 1.0, "document": 2.0, "text": 3.0},
    2: {"caption": 1.0, "vqa": 1.0, "document": 2.0, "text": 2.0, "box": 2.0},
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The config of one stage; fields are changed by --config.field=value."""
    stage = configs.parse_arg(arg, stage=1).stage
    if stage not in RATES:
        raise UserError(f"stage={stage} is not one of the stages of pretraining, 1 and 2.")
    config = configs.defaults()
    config.name = "pali_pretrain"
    config.batch_size = 32
    configs.set_pretraining(config)
    for task, rate in RATES[stage].items():
        config.data.rates[f"pretrain_{task}"] = rate
    config.data.prompt_length = 24
    config.data.target_length = 20
    if stage == 1:
        config.steps = 4500
        config.backbone.init = "random"
        config.optimizer.learning_rate = 1.5e-3
        config.optimizer.warmup = 150
        config.export = STAGE_1
    else:
        config.steps = 1200
        config.backbone.init = STAGE_1
        config.optimizer.learning_rate = 1e-3
        config.optimizer.warmup = 50
        config.export = "omni_smola/pretrained/tiny.safetensors"
    return config
