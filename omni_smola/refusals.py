"""What is refused before anything is read, written or made."""

import os

import ml_collections

from omni_smola import config as configs
from omni_smola import programs
from omni_smola.data import frames, text
from omni_smola.errors import UserError
from omni_smola.models import build
from omni_smola.training import optimizer, restoring, stages


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for settings that no run can have, of all of its stages."""
    check_settings(config)
    if config.language.stage_1_steps and not config.language.stage_1:
        check_settings(stages.first_stage(config))


def check_question(image: str | None, prompt: str | None) -> str:
    """The prompt of the command line, cleaned.

    Raises:
      UserError: there is none, it is no text, or the image is no file.
    """
    prompt = text.from_command_line(prompt or "", "--prompt")
    if not prompt.strip():
        raise UserError("--mode=predict needs a prompt: add --prompt='Answer in en: ...'.")
    if image is not None and not os.path.isfile(os.path.expanduser(image)):
        raise UserError(
            f"The image {image} cannot be read, as there is no such file: give an existing one by "
            "--image=PATH."
        )
    return prompt


def check_trained(workdir: str) -> None:
    """Raises UserError for a workdir without a checkpoint, before a model is made for it."""
    folder = os.path.join(os.path.abspath(os.path.expanduser(workdir)), "checkpoints")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    steps = [int(name) for name in names if name.isdecimal()]
    restoring.candidates(folder, dict.fromkeys(steps), "latest")


def check_settings(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for what can be refused before anything is read, written or made."""
    configs.check(config)
    frames.check_name(config.data.frame)
    programs.decoding(config)
    optimizer.make_optimizer(config.optimizer, config.steps)
    build.check_experts(config.experts)
    build.check_mome(config.vision, config.language)
    if config.export and config.experts.method != "full":
        raise UserError(
            f"config.export is {config.export!r}, but only experts.method=full trains a whole "
            f"backbone, not {config.experts.method!r}: set --config.export= to nothing."
        )
