"""The main job: Omni-SMoLA on a frozen PaLI (arXiv 2312.00968).

Arguments after the colon, all optional, such as `configs/pali_smola.py:experts=16-16-16,rank=4`:
  backbone   tiny; t5gemma2_270m, t5gemma2_1b, t5gemma2_4b, paligemma_3b, paligemma2_3b and others
             of models/backbones.py, with weights by --config.backbone.init; pali3, palix
  experts    visual-text-multimodal, such as 16-16-16
  rank       of the experts
  res        pixels of the image's side; 0 is the backbone's own
  tasks      full, captioning, vqa, or names of tasks joined by +
"""

import ml_collections

from omni_smola import config as configs


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The config of the main job; see the module's docstring for `arg`."""
    arg = configs.parse_arg(arg, backbone="tiny", experts="8-8-8", rank=4, res=0, tasks="full")
    config = configs.defaults()
    config.name = "pali_smola"
    config.backbone.name = arg.backbone
    config.backbone.resolution = arg.res
    experts = config.experts
    experts.visual, experts.text, experts.multimodal = configs.parse_experts(arg.experts)
    experts.rank = arg.rank
    configs.set_tasks(config, arg.tasks)
    if arg.backbone == "tiny":
        # A run of minutes: measured in docs/evidence/first_run.md.
        experts.scale_init = 8.0
        config.optimizer.learning_rate = 5e-3
    else:
        # PaLI-3 and PaLI-X were never released: until weights are given theirs are random.
        if arg.backbone in ("pali3", "palix"):
            config.backbone.init = "random"
        if arg.backbone == "palix":  # 64 chips of v5p, docs/evidence/compile_table.md
            config.mesh.update(data=1, fsdp=-1, tensor=4)
            config.batch_size = config.eval.batch_size = 128
        config.backbone.dtype = config.backbone.param_dtype = "bfloat16"
        config.backbone.remat = True
        config.data.prompt_length = 64
        config.data.target_length = 32
    return config
