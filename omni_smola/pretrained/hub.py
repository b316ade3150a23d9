"""What `--config.backbone.init` names: something local, or a repository of the Hugging Face Hub."""

import pathlib
import re

from omni_smola.errors import UserError

SCHEME = "hf://"
_REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
# Weights that are no pickle, what describes them, and tokenizers; of the repository's own folder
# only, and no second copy of the weights in another layout.
_WANTED = ["*.safetensors", "*.json", "*.model", "*.jinja", "vocab.txt", "merges.txt"]
_UNWANTED = ["*/*", "consolidated*"]


def resolve(init: str) -> pathlib.Path:
    """The local file or folder that `init` names.

    `hf://OWNER/REPO`, or `hf://OWNER/REPO@REVISION` for a branch, tag or commit, is downloaded by
    huggingface_hub into its cache, or found there: safetensors, JSON and tokenizer files
    and chat templates alone. Anything else is a local path.

    Raises:
      UserError: no such path; a name that is no repository's; huggingface_hub is not installed; the
        repository cannot be had, or has no safetensors.
    """
    if not init.startswith(SCHEME):
        path = pathlib.Path(init).expanduser()
        if not path.exists():
            raise UserError(
                f"There is no checkpoint {path}: give a local folder or file by "
                "--config.backbone.init=PATH, or hf://OWNER/REPO, shipped or random."
            )
        return path
    found = _REPOSITORY.fullmatch(init.removeprefix(SCHEME))
    if found is None:
        raise UserError(
            f"config.backbone.init is {init!r}, but a repository is named hf://OWNER/REPO, or "
            "hf://OWNER/REPO@REVISION: set --config.backbone.init so."
        )
    folder = _download(found["repo"], found["revision"])
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"The repository {init} has no safetensors files, and pickles are not read: choose "
            "another by --config.backbone.init."
        )
    return folder


def _download(repo: str, revision: str | None) -> pathlib.Path:
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise UserError(
            f"{SCHEME}{repo} is downloaded by the package huggingface_hub, which is not installed: "
            "pip install huggingface_hub, or download the repository's files yourself and give "
            "their folder by --config.backbone.init=FOLDER."
        ) from error
    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(
                repo, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED
            )
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        why = str(error).strip().split("\n")[0]
        raise UserError(
            f"{SCHEME}{repo} cannot be downloaded ({type(error).__name__}: {why}): check the name "
            "and the network; where the model asks for its licence to be accepted, do so on its "
            "page and log in by `hf auth login`; or give a local folder by "
            "--config.backbone.init=FOLDER."
        ) from error
