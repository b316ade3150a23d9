"""Commands and code of README and docs: quick ones are run, of all others the config is checked."""

import ast
import contextlib
import copy
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from unittest import mock

import pytest
from absl import flags
from ml_collections import config_flags

from omni_smola import config as configs
from omni_smola import main, source_flags

from . import pages

BLOCKS = [block for page in pages.PAGES for block in pages.blocks(page)]
COMMANDS = [(block.where, line) for block in BLOCKS for line in pages.commands(block)]
MAIN = [(where, line) for where, line in COMMANDS if pages.main_arguments(line) is not None]
EXTRAS = {
    ast.literal_eval(key)
    for node in ast.walk(ast.parse((pages.ROOT / "setup.py").read_text()))
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXTRAS"
    for key in node.value.keys
}
PYTHON = [block for block in BLOCKS if block.language == "python"]


def parsed(arguments: list[str]) -> flags.FlagValues:
    """The flags of the command line, of these arguments and with a config that passes checks."""
    arguments, settings = source_flags.split(arguments)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", lock_config=True, flag_values=values)
    for name in ("mode", "workdir", "image", "prompt", "topology"):
        values[name] = copy.deepcopy(flags.FLAGS[name])
    argv = ["main", *arguments]
    # ml_collections looks for overrides in sys.argv.
    with mock.patch.object(sys, "argv", argv), contextlib.chdir(pages.ROOT):
        assert values(argv) == ["main"]
    source_flags.apply(values.config, settings)
    configs.check(values.config)
    return values


def test_the_pages_have_commands():
    assert len(MAIN) > 40
    assert {parsed(pages.main_arguments(line)).mode for _, line in MAIN} == set(main.MODES)


@pytest.mark.parametrize(("where", "line"), MAIN, ids=[where for where, _ in MAIN])
def test_a_command_has_a_config_that_passes_its_checks(where, line):
    values = parsed(pages.main_arguments(line))
    assert values.config.data.rates
    if values.mode == "compile":
        assert values.topology


@pytest.mark.parametrize(("where", "line"), COMMANDS, ids=[where for where, _ in COMMANDS])
def test_files_extras_and_flags_of_a_command_exist(where, line):
    words = shlex.split(line, comments=True)
    for file in filter(None, map(pages.FILE_IN_COMMAND.search, words)):
        assert (pages.ROOT / file[0]).exists(), file[0]
    for extras in re.findall(r"\.\[([\w,]*)\]", line):
        assert set(extras.split(",")) <= EXTRAS, extras
    for script in (word for word in words if re.match(r"(third_party|benchmarks)/.*\.py$", word)):
        source = (pages.ROOT / script).read_text()
        for flag in re.findall(r"--([\w-]+)", line):
            assert re.search(f'"(--)?{flag}"', source), f"{script} has no --{flag}"


def test_commands_stand_in_blocks_only():
    """A command in indented text would not be collected."""
    for page in pages.PAGES:
        for line in pages.prose(page).splitlines():
            assert not (line.startswith("    ") and pages.MAIN in line), (pages.name(page), line)


@pytest.mark.parametrize(
    "wrong",
    [
        "--config=configs/pali_smola.py:colour=3",
        "--config=configs/pali_smola.py --config.no_such_field=1",
        "--config=configs/pali_smola.py --config.checkpoint.keep=0",
        "--config=configs/own_data.py:folders=pets --config.data.sources.pets.colour=red",
        "--config=configs/pali_smola.py --mode=dance",
        "--config=configs/no_such_file.py",
        "--config=configs/pali_smola.py word",
    ],
)
def test_a_wrong_command_would_be_found(wrong):
    with pytest.raises(Exception, match=r"colour|no_such_field|keep|dance|no_such_file|word"):
        parsed(shlex.split(wrong))


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.where)
def test_python_compiles_and_its_imports_resolve(block):
    for node in ast.walk(ast.parse(block.text, block.where)):
        if isinstance(node, ast.Import):
            assert all(importlib.util.find_spec(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert resolves(node.module, alias.name), f"{node.module}.{alias.name}"


def resolves(module: str, name: str) -> bool:
    """Whether `from module import name` works. What needs TensorFlow is looked for, not run."""
    if module.startswith("omni_smola.data"):
        path = pages.ROOT / module.replace(".", "/")
        return (path / f"{name}.py").exists() or (path / name).is_dir()
    if importlib.util.find_spec(module) is None:
        return False
    if hasattr(importlib.import_module(module), name):
        return True
    return importlib.util.find_spec(f"{module}.{name}") is not None


def quick(block: pages.Block) -> object:
    """The README's Python trains a model, which takes longer than the blocks of other pages."""
    trains = block.where.startswith("README") and block.language == "python"
    return pytest.param(block, id=block.where, marks=[pytest.mark.slow] * trains)


@pytest.mark.parametrize("block", [quick(block) for block in BLOCKS if block.run])
def test_a_block_marked_as_quick_runs(block, monkeypatch, tmp_path):
    if block.language == "python":
        monkeypatch.chdir(tmp_path)
        exec(compile(block.text, block.where, "exec"), {"__name__": "example"})
        return
    for line in pages.commands(block):
        words = shlex.split(line, comments=True)
        assert words[0] == "python", line
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=pages.ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0 and done.stdout, (line, done.stderr)
