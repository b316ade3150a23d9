"""The command line: `python -m omni_smola.main --config=configs/pali_smola.py`.

Every mistake that a user can set right ends in one sentence on the standard error and status 2.
"""

import difflib
import errno
import hashlib
import os
import re
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from omni_smola import source_flags
from omni_smola.config_checks import check_given
from omni_smola.errors import Preempted, UserError

MODES = ("train", "eval", "predict", "routing", "data", "compile")

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The experiment, such as configs/pali_smola.py or configs/pali_smola.py:experts=16-16-16. "
    "Any field can be changed: --config.steps=100.",
    lock_config=True,
)
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run: checkpoints, predictions, scores, logs. Default: runs/CONFIG. "
    "The same command again resumes.",
)
_IMAGE = flags.DEFINE_string("image", None, "predict: an image file.")
_PROMPT = flags.DEFINE_string("prompt", None, "predict: what to ask.")
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "compile: a TPU that need not be there, such as v5e:4x4 or v5p:4x4x4."
)
_USAGE = (
    f"--config=..., --mode={'|'.join(MODES)}, --workdir=..., --image=..., --prompt=..., "
    "--topology=..."
)

_LONGEST_NAME = 120  # bytes of a folder's name
_ENDS_WITH_OTHERS = (
    "omni_smola: this process, one of several, ends by the error above, and the run with it. If "
    "another ended before, what it said is the reason. The same command on all hosts goes on from "
    "what is saved."
)


def default_workdir(config: str) -> str:
    """`configs/pali_smola.py:rank=8` -> `runs/pali_smola-rank=8`.

    A name that is too long for a folder is cut, and ends with a hash of the whole.
    """
    path, _, arg = config.partition(":")
    name = os.path.splitext(os.path.basename(path))[0]
    name = "-".join(filter(None, [name, re.sub(r"[^\w=.+-]+", "_", arg)]))
    if len(os.fsencode(name)) > _LONGEST_NAME:
        digest = hashlib.sha256(os.fsencode(config)).hexdigest()[:8]
        name = f"{os.fsencode(name)[:_LONGEST_NAME].decode(errors='ignore')}-{digest}"
    return os.path.join("runs", name)


def main(argv: Sequence[str]) -> None:
    """Runs one mode; the report or the answer goes to the standard output."""
    if len(argv) > 1:
        raise UserError(f"{argv[1]!r} is not a flag: write {_USAGE}.")
    if _CONFIG.value is None:
        raise UserError("There is no config: add --config=configs/pali_smola.py.")
    source = flags.FLAGS["config"].config_filename
    workdir = _WORKDIR.value or default_workdir(_config_argument() or source)
    if _MODE.value != "compile":  # that is for a machine that is not there: no other host has part
        from omni_smola.training import distributed

        distributed.start()
    from omni_smola.training.faults.workdir import no_empty_folders

    with no_empty_folders(workdir):
        told = _told(_MODE.value, _CONFIG.value, workdir)
        # A terminal may have another encoding than UTF-8, and a path bytes that have none.
        encoding = sys.stdout.encoding or "utf-8"
        print(told.encode(encoding, "backslashreplace").decode(encoding), end="")


def _told(mode: str, config: ml_collections.ConfigDict, workdir: str) -> str:
    """What a mode has to say on the standard output; "" on hosts that are not the primary one."""
    from omni_smola import modes

    if mode == "compile":
        return f"{modes.compile_ahead(config, workdir, _TOPOLOGY.value)}\n"
    if mode == "data":
        return f"{modes.inspect_data(config, workdir)}\n"
    from omni_smola import refusals
    from omni_smola.run import Run
    from omni_smola.training import distributed
    from omni_smola.training.faults.preemption import Preemption
    from omni_smola.training.faults.watchdog import Watchdog

    refusals.check(config)
    with Watchdog(config.faults.watchdog_minutes) as watchdog:
        if mode == "train":
            with Preemption(config.checkpoint.grace_seconds) as preemption:
                modes.train_first_stage(config, workdir, preemption, watchdog)
                told = modes.train(Run(config, workdir, watchdog), preemption)
        elif mode == "predict":
            prompt = refusals.check_question(_IMAGE.value, _PROMPT.value)
            told = modes.predict(Run(config, workdir, watchdog, ()), _IMAGE.value, prompt)
        else:
            refusals.check_trained(workdir)
            run = Run(config, workdir, watchdog, ("eval",))
            told = {"eval": modes.evaluate, "routing": modes.routing}[mode](run)
    return f"{told}\n" if distributed.is_primary() else ""


def parse(argv: Sequence[str]) -> list[str]:
    """absl's flags; what is wrong with the config or its overrides becomes a UserError."""
    argument = _config_argument()
    if argument is not None and not os.path.isfile(argument.partition(":")[0]):
        raise UserError(
            f"There is no config file {argument.partition(':')[0]!r}: give --config the path of a "
            "Python file that has get_config, such as --config=configs/pali_smola.py."
        )
    rest, settings = source_flags.split(argv)
    words, sys.argv = sys.argv, rest  # ml_collections reads it, too
    try:
        left = flags.FLAGS(rest)
        if _CONFIG.value is not None:
            source_flags.apply(_CONFIG.value, settings)
            check_given(_CONFIG.value, set(_overrides()))
        return left
    except Exception as error:
        told = [e for e in _chain(error) if isinstance(e, UserError)]
        # ml_collections wraps what get_config raises in its own text; the first cause says it best.
        sentence = str(told[-1]) if told else _explain(error, argument or "")
        raise UserError(sentence) from error
    finally:
        sys.argv = words


def _explain(error: Exception, argument: str) -> str:
    """What is wrong with the command line, what it could be, and how to put it right."""
    if isinstance(error, flags.UnrecognizedFlagError):
        return _unknown_flag(error.flagname)
    if isinstance(error, flags.Error):
        field = re.match(r"flag --config\.([\w.]+)=(.*?): ", str(error), re.DOTALL)
        if field and argument:
            return _wrong_type(*field.groups(), argument)
        return f"{_line(error)} The flags are {_USAGE}."
    try:
        config = _load(argument)
        unknown = [path for path in _overrides() if not _has(config, path)]
        if unknown:
            return _unknown_field(config, unknown[0])
    except Exception as loading:  # whatever is wrong in the user's file
        error = loading
    return (
        f"The config file {argument.partition(':')[0]} cannot be used ({type(error).__name__}: "
        f"{_line(error)}) It must be a Python file with a function get_config that returns an "
        "ml_collections.ConfigDict, such as configs/pali_smola.py."
    )


def _unknown_flag(name: str) -> str:
    from omni_smola.config import defaults

    hint = f"; a field of the config is --config.{name}=..." if name in defaults() else ""
    return f"There is no flag --{name}: the flags are {_USAGE}{hint}."


def _unknown_field(config: ml_collections.ConfigDict, path: str) -> str:
    """The sentence for --config.a.b where the config has no a.b."""
    *parents, name = path.split(".")
    where = "config"
    for parent in parents:
        if not isinstance(config, ml_collections.ConfigDict) or parent not in config:
            name = parent
            break
        config, where = config[parent], f"{where}.{parent}"
    if not isinstance(config, ml_collections.ConfigDict):
        return f"--config.{path} cannot be set: {where} is a value, {config!r}, and has no fields."
    close = difflib.get_close_matches(name, config.keys(), n=1)
    hint = f"did you mean --{where}.{close[0]}? " if close else ""
    return (
        f"--config.{path} cannot be set, as {where} has no field {name!r}: {hint}"
        f"Its fields are {', '.join(config.keys()) or 'none'}."
    )


def _wrong_type(path: str, value: str, argument: str) -> str:
    """The sentence for --config.path=value where the value cannot be read."""
    config = _load(argument)
    for name in path.split("."):
        config = config[name]
    if isinstance(config, ml_collections.ConfigDict):
        return (
            f"--config.{path}={value} cannot be set, as config.{path} is a group of fields: set "
            f"one of them, {', '.join(f'--config.{path}.{name}=...' for name in config)}."
        )
    return (
        f"--config.{path}={value} is not a value of type {type(config).__name__}: write one such "
        f"as --config.{path}={config}."
    )


def _load(argument: str) -> Any:
    """The config as it is without overrides."""
    path, *arg = argument.split(":", 1)
    return runpy.run_path(path)["get_config"](*arg)


def _has(config: Any, path: str) -> bool:
    for name in path.split("."):
        if not isinstance(config, ml_collections.ConfigDict) or name not in config:
            return False
        config = config[name]
    return True


def _overrides() -> Iterator[str]:
    """The fields set on the command line, `--config.a.b=1` -> `a.b`; not by `source_flags`."""
    for word in source_flags.split(sys.argv[1:])[0]:
        found = re.match(r"--?(?:no)?config\.([\w.]+)", word)
        if found:
            yield found.group(1)


def _config_argument() -> str | None:
    """The value of --config as it was typed, with what follows its colon."""
    for i, word in enumerate(sys.argv):
        if re.match(r"--?config=", word):
            return word.partition("=")[2]
        if re.fullmatch(r"--?config", word) and i + 1 < len(sys.argv):
            return sys.argv[i + 1]
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those during whose handling it was raised."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _line(error: BaseException) -> str:
    text = str(error.args[0] if isinstance(error, KeyError) else error).strip() or repr(error)
    return text.splitlines()[0].rstrip(".") + "."


def _run(argv: Sequence[str]) -> None:
    """`main`; a disk that takes no more is no fault of the program."""
    try:
        main(argv)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise UserError(
            f"What the run had to write could not be written ({error}): make room there, or choose "
            "another --workdir, and run the same command again."
        ) from error


def cli() -> None:
    """Runs `main`, telling users' mistakes in one sentence."""
    logging.set_verbosity(logging.ERROR)
    try:
        app.run(_run, flags_parser=parse)
    except UserError as error:
        # One sentence; what it lists in lines of their own, set in by two blanks, stays so.
        text = re.sub(r"\s*\n(?!  \S)\s*", " ", str(error).strip())
        print(f"omni_smola: {text}", file=sys.stderr)
        _leave_others(2)
        sys.exit(2)
    except Preempted as ended:
        print(f"omni_smola: {ended}; the same command goes on from what is saved.", file=sys.stderr)
        sys.exit(0)
    except Exception:
        if _has_others():
            traceback.print_exc()
            print(_ENDS_WITH_OTHERS, file=sys.stderr)
            _leave_others(1)
        raise


def _has_others() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _leave_others(status: int) -> None:
    """Ends a process of many at once: JAX would have it wait for the others, which wait for it."""
    if _has_others():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    cli()
