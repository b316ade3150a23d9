"""The tasks of a run: named mixtures and suites, a user's own folders and their names."""

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence

import ml_collections

from omni_smola.config_arguments import paths, split_list
from omni_smola.errors import UserError

# Of a task's name in characters: file names made of it stay below 255 bytes in any script.
_LONGEST = 48
# What a source may say of a folder beside its path.
SOURCE_OPTIONS = ("path", "kind", "adapter", "metric", "group")

# Omni-SMoLA trains generalists on a captioning, a VQA and a full mixture; these are theirs on the
# embedded mini suite.
_CAPTIONING = ("mini_caption", "mini_describe")
_VQA = ("mini_vqa", "mini_count", "mini_chart", "mini_document", "mini_choice")
MIXTURES = {
    "captioning": _CAPTIONING,
    "vqa": _VQA,
    "full": (*_CAPTIONING, *_VQA, "mini_box"),
}

# The same of public datasets, and MoME's suite: tasks trained on, and tasks only evaluated.
_SMOLA_CAPTIONING = (
    "coco_captions textcaps vizwiz_captions scicap screen2words widget_captions".split(),
    ["nocaps", "xm3600"],
)
_SMOLA_VQA = (
    "vqav2 okvqa aokvqa_direct aokvqa_choice gqa vizwiz_vqa textvqa stvqa ocrvqa scienceqa ai2d "
    "chartqa docvqa infographicvqa".split(),
    ["tallyqa"],
)
SUITES = {
    "smola_captioning": _SMOLA_CAPTIONING,
    "smola_vqa": _SMOLA_VQA,
    "smola_full": tuple(a + b for a, b in zip(_SMOLA_CAPTIONING, _SMOLA_VQA, strict=True)),
    "mome": (
        "coco_captions flickr30k okvqa vqav2 aokvqa_direct gqa iconqa refcoco_rec refcoco_plus_rec "
        "refcocog_rec refcoco_reg refcoco_plus_reg refcocog_reg chartqa tabfact textcaps deepform "
        "visualmrc docvqa infographicvqa wikitablequestions textvqa".split(),
        ["nocaps", "vsr"],
    ),
}
# MoME trains on these and reports other sets of their groups.
_NOT_REPORTED = {"mome": ("vqav2", "visualmrc")}


def set_tasks(config: ml_collections.ConfigDict, tasks: str) -> None:
    """The tasks of a named mixture, or task names joined by +, in equal rates.

    A suite of public datasets is sampled by size, MoME's with equal shares of its four groups; its
    held-out sets are evaluated too.

    Raises:
      UserError: a text that no task can be called.
    """
    trained, held_out = SUITES.get(tasks, (MIXTURES.get(tasks, split_list(tasks)), ()))
    for task in trained:
        if not re.fullmatch(r"[\w:#]+", task):
            raise UserError(
                f"tasks={tasks}: {task!r} is no name of a task, which has letters, digits and "
                "underscores. A folder of your own becomes one by --config.data.sources.NAME=PATH."
            )
        config.data.rates[task] = 1.0
    if tasks in SUITES:
        hidden = _NOT_REPORTED.get(tasks, ())
        config.eval.tasks = "+".join(t for t in (*trained, *held_out) if t not in hidden)
        config.data.mixing = "group" if tasks == "mome" else "size"
        config.eval.groups = "mome" if tasks == "mome" else "family"


def task_name(name: str) -> str:
    """The name of the task of a folder or a source that a user called `name`.

    Every run of characters other than letters, digits and underscores becomes one underscore:
    `my photos (2024)` is `my_photos_2024`. Names longer than 48 characters are cut.

    Raises:
      UserError: no letter, digit or underscore is left.
    """
    adapted = re.sub(r"\W+", "_", unicodedata.normalize("NFC", name))
    if adapted != name:
        adapted = adapted.strip("_")
    if not adapted:
        raise UserError(
            f"A task cannot be called {name!r}: its name needs a letter or a digit. Give the "
            "folder a name of your own by --config.data.sources.NAME=PATH."
        )
    return adapted[:_LONGEST]


def set_folders(config: ml_collections.ConfigDict, folders: str | Sequence[str]) -> None:
    """Tasks of a user's own folders in equal rates; each is named after its folder (`task_name`).

    People's sentences are longer than the mini suite's: of Flickr8k's captions nine in ten fit.

    Args:
      folders: paths, or one text with paths joined by +, see `config_arguments.paths`.

    Raises:
      UserError: two folders of one name, or a folder whose name no task can have.
    """
    for folder in paths(folders):
        path = os.path.abspath(os.path.expanduser(folder))
        name = task_name(os.path.basename(path))
        if name in config.data.sources:
            raise UserError(
                f"Two of the folders are called {name!r}: rename one, or leave it out and give it "
                f"another name by --config.data.sources.NAME=PATH. They are "
                f"{config.data.sources[name]} and {path}; of a folder's name, a task's has the "
                "letters, digits and underscores."
            )
        add_source(config, name, {"path": path})
    set_lengths_of_own_data(config)


def set_lengths_of_own_data(config: ml_collections.ConfigDict) -> None:
    """Prompts and answers of 32 tokens at least."""
    for length in ("prompt_length", "target_length"):
        config.data[length] = max(config.data[length], 32)


def add_source(config: ml_collections.ConfigDict, name: str, options: Mapping[str, str]) -> None:
    """Makes a folder a task, at rate 1 if it is new, or adds options to a source that is there.

    Args:
      name: of the task. options: any of SOURCE_OPTIONS.
    """
    sources = config.data.sources
    known = sources.get(name, {})
    known = {"path": known} if isinstance(known, str) else dict(known)
    known |= options
    if name in sources:
        del sources[name]
    elif name not in config.data.rates:
        config.data.rates[name] = 1.0
    sources[name] = known["path"] if list(known) == ["path"] else known
