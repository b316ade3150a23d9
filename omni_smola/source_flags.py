"""Folders and rates by the command line, of names that the config does not have.

    --config.data.sources.NAME=PATH             a folder becomes the task NAME, at rate 1
    --config.data.sources.NAME.OPTION=VALUE     kind, adapter, metric or group of that folder
    --config.data.rates.NAME=RATE               also for tasks that are not in the mixture yet

NAME may be anything: `task_name` makes a task's name of it. PATH is taken as it is, to the letter.
`ml_collections` itself sets only fields that a config has already.
"""

import difflib
import os
import re
from collections.abc import Sequence

import ml_collections

from omni_smola.config_tasks import SOURCE_OPTIONS, add_source, task_name
from omni_smola.errors import UserError

_FLAG = re.compile(r"--?config\.data\.(sources|rates)\.([^=]+)(=?)(.*)", re.DOTALL)
Setting = tuple[str, str, str]  # sources or rates, what follows it, value


def split(argv: Sequence[str]) -> tuple[list[str], list[Setting]]:
    """The words of a command line that `ml_collections` can read, and the settings of the others.

    Raises:
      UserError: a flag without a value.
    """
    rest: list[str] = []
    settings: list[Setting] = []
    words = iter(argv)
    for word in words:
        found = _FLAG.fullmatch(word)
        if not found:
            rest.append(word)
            continue
        group, name, equals, value = found.groups()
        if not equals:
            value = next(words, "")
        if not value:
            raise UserError(f"{word} needs a value: write --config.data.{group}.{name}=VALUE.")
        settings.append((group, name, value))
    return rest, settings


def apply(config: ml_collections.ConfigDict, settings: Sequence[Setting]) -> None:
    """Sets the settings of `split`.

    Raises:
      UserError: an unknown option, an option of a folder that is not there, a rate that is none.
    """
    with config.unlocked():
        for group, name, value in settings:
            if group == "rates":
                _set_rate(config, name, value)
            else:
                _set_source(config, name, value)
    for name, source in config.data.sources.items():
        if not isinstance(source, str) and "path" not in source:
            raise UserError(
                f"There is no data source {name!r}: give its folder by "
                f"--config.data.sources.{name}=PATH."
                + _known("The sources are", [n for n in config.data.sources if n != name])
            )


def _set_source(config: ml_collections.ConfigDict, name: str, value: str) -> None:
    head, _, option = name.rpartition(".")
    if not head or option not in SOURCE_OPTIONS:
        if head and task_name(head) in config.data.sources:
            close = difflib.get_close_matches(option, SOURCE_OPTIONS, n=1)
            raise UserError(
                f"--config.data.sources.{name} cannot be set: a data source has no option "
                f"{option!r}, but {', '.join(SOURCE_OPTIONS)}"
                + (f". Did you mean {close[0]}?" if close else ".")
            )
        head, option = name, "path"
    if option == "path":
        value = os.path.abspath(os.path.expanduser(value))
    add_source(config, task_name(head), {option: value})


def _set_rate(config: ml_collections.ConfigDict, name: str, value: str) -> None:
    try:
        config.data.rates[task_name(name)] = float(value)
    except ValueError:
        raise UserError(
            f"--config.data.rates.{name}={value} is not a number: write one above zero, such as "
            f"--config.data.rates.{name}=1.0."
        ) from None


def _known(words: str, names: Sequence[str]) -> str:
    return f" {words} {', '.join(names)}." if names else ""
