"""Omni-SMoLA on your own data: folders of JSONL and images beside, or in place of, the mini suite.

Arguments after the colon:
  folders  paths joined by +; each becomes the task of the folder's name (see docs/guides/
           own_data.md), and a folder of boxes a second one, NAME_describe. A comma or a plus sign
           inside of a path has a backslash before it. --config.data.sources.NAME=PATH does the same
           for one folder, by a name of your own
  experts, rank   as in pali_smola.py
  tasks    tasks of the mini suite to train as well, as in pali_smola.py; none by default
"""

import ml_collections

from omni_smola import config as configs


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The config for the folders given; see the module's docstring for `arg`."""
    arg = configs.parse_arg(arg, folders=(), experts="8-8-8", rank=4, tasks="")
    config = configs.defaults()
    config.name = "own_data"
    experts = config.experts
    experts.visual, experts.text, experts.multimodal = configs.parse_experts(arg.experts)
    experts.rank = arg.rank
    experts.scale_init = 8.0
    config.optimizer.learning_rate = 5e-3
    configs.set_folders(config, arg.folders)
    if arg.tasks:
        configs.set_tasks(config, arg.tasks)
    return config
