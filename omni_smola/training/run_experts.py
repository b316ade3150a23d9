"""The experts of a run's checkpoint, for Python: onto a backbone that was loaded."""

import os
import pathlib
import sys
from typing import Any

import ml_collections
from flax import nnx

from omni_smola.errors import UserError, first_line
from omni_smola.experts.values import expert_parameters, put_parameters
from omni_smola.experts_file import check_backbone
from omni_smola.models import backbones, build
from omni_smola.training import restoring
from omni_smola.trees import nest, paths


def load_run_experts(
    workdir: str | os.PathLike[str], model: nnx.Module, *, step: int = 0, check: bool = True
) -> int:
    """Reads the experts that a run has trained into a model, in place.

    `save_experts` then writes them to a file.

    Args:
      workdir: of a run of `python -m omni_smola.main`.
      model: the run's backbone, of `load_backbone`, without experts.
      step: of the checkpoint; 0 is the newest that is whole.
      check: whether the backbone must be the run's, see `load_experts`.

    Returns:
      The step.

    Raises:
      UserError: there is no such checkpoint, it is damaged, it belongs to another backbone, the
        model has experts, or the run trained something else than experts on a backbone.
    """
    if expert_parameters(model):
        raise UserError(
            "The model has experts, but those of a run are attached as its config says: give "
            "load_run_experts a fresh model of load_backbone."
        )
    folder = pathlib.Path(workdir).expanduser() / "checkpoints"
    steps = _steps(folder, step)
    path = folder / str(steps[0])
    try:
        identity = restoring.identity_of(path)
    except Exception as error:  # Orbax and TensorStore raise nearly everything
        raise UserError(
            f"The checkpoint {path} cannot be read ({first_line(error)}): name an earlier one by "
            "step=."
        ) from error
    _check_trained(path, identity)
    if check:
        name, _, fingerprint = identity["backbone"].rpartition(" ")
        frame = (restoring.BEFORE | identity)["data.frame"]
        trained_on = {"name": name, "fingerprint": fingerprint, "frame": frame}
        check_backbone(path, trained_on, model)
    graphdef, state = nnx.split(model)
    tuned = _with_experts(nnx.merge(graphdef, state), identity)
    wanted = {"trainable": nest(expert_parameters(tuned))}
    step, restored = restoring.first_whole(str(folder), steps, wanted, {}, _tell, put_aside=False)
    _with_experts(model, identity)
    put_parameters(model, paths(restored["trainable"]))
    return step


def _steps(folder: pathlib.Path, step: int) -> list[int]:
    """The steps to try, in their order."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    steps = sorted((int(name) for name in names if name.isdigit()), reverse=True)
    if not steps:
        raise UserError(
            f"There is no checkpoint in {folder}: give the workdir of a run that has saved one."
        )
    if step and step not in steps:
        raise UserError(
            f"There is no checkpoint of step {step} in {folder}: choose one of "
            f"{', '.join(map(str, steps))}."
        )
    return [step] if step else steps


def _check_trained(path: pathlib.Path, identity: dict[str, Any]) -> None:
    """Raises UserError unless a run trained experts that are attached to a backbone."""
    method, encoders = identity["experts"]["method"], identity.get("vision", {}).get("encoders")
    if encoders:
        raise UserError(
            f"The checkpoint {path} has a mixture of the vision experts {encoders}, which is a "
            "part of its model: evaluate it, or ask it, by python -m omni_smola.main."
        )
    if method == "full" or (method == "none" and not _language(identity)["experts"]):
        raise UserError(
            f"The checkpoint {path} is of a run with experts.method={method}, which trains no "
            "experts: give the workdir of one with smola, lora or adapter."
        )


def _with_experts(model: Any, identity: dict[str, Any]) -> nnx.Module:
    experts = ml_collections.ConfigDict(identity["experts"])
    language = ml_collections.ConfigDict(_language(identity))
    where = backbones.expert_paths(model.config)
    build.attach_experts(model, experts, nnx.Rngs(0), where)
    build.attach_language_experts(model, language, nnx.Rngs(0))
    return model


def _language(identity: dict[str, Any]) -> dict[str, Any]:
    """The config of language experts, which the oldest checkpoints do not have."""
    return identity.get("language") or {"experts": 0}


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
