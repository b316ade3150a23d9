"""The test suite itself: it is collected whatever is installed, and shows what ends a process."""

import importlib.machinery
import importlib.metadata
import importlib.util
import os
import subprocess
import sys

import filelock
import pytest

from . import forks, missing, xla_flags
from .conftest import ROOT

# The modules that each extra of setup.py brings.
MODULES = {
    "minilm": ("tokenizers", "huggingface_hub"),
    "pdf": ("pypdfium2",),
    "compile": ("libtpu",),
    "beam": ("apache_beam", "google_crc32c", "mlcroissant"),
    "parity": ("torch", "transformers", "pycocoevalcap", "pycocotools", "gguf", "onnx"),
}
# Extras that are one of these, that the tests cannot do without, or that are made for a machine.
OTHERS = {"hf", "tpu", "gpu", "gpu12", "dev", "docs", "test"}


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def test_every_extra_is_known_here():
    extras = set(importlib.metadata.metadata("omni_smola").get_all("Provides-Extra"))
    assert extras <= MODULES.keys() | OTHERS


@pytest.mark.slow
def test_every_module_is_collected_with_each_extra_missing():
    """With all of them missing too. What is missing anyway needs no process of its own."""
    sets = [
        modules
        for modules in MODULES.values()
        if any(importlib.util.find_spec(module) for module in modules)
    ]
    every = [module for modules in MODULES.values() for module in modules]
    done = run("-m", "tests.missing", *(",".join(each) for each in [every, *sets]))
    assert done.returncode == 0, done.stdout


def test_a_hidden_module_is_not_found():
    finder = missing.Without(importlib.machinery.PathFinder, ["sklearn"])
    assert finder.find_spec("sklearn") is finder.find_spec("sklearn.svm") is None
    assert finder.find_spec("filelock").origin == filelock.__file__


@pytest.mark.parametrize("workers", [0, 1])
def test_the_last_words_of_a_process_are_shown(workers, tmp_path):
    """XLA writes them to the file descriptor and ends the process, at once."""
    (tmp_path / "test_it.py").write_text(
        "def test():\n    from jaxlib import xla_client\n    xla_client.CompileOptions()\n"
    )
    options = f"-c pyproject.toml -n{workers} --max-worker-restart=0 -pno:cacheprovider".split()
    done = run("-m", "pytest", *options, str(tmp_path), XLA_FLAGS="--xla_no_such_flag=true")
    assert done.returncode != 0
    assert "Unknown flag in XLA_FLAGS: --xla_no_such_flag=true" in done.stdout


def test_a_server_of_forks_that_ends_says_why(tmp_path):
    (tmp_path / "absl.py").write_text("raise SystemError('no absl here')")
    with pytest.raises(RuntimeError, match="no absl here"):
        forks.Server(tmp_path / "socket", os.environ | {"PYTHONPATH": str(tmp_path)})


def test_only_flags_that_xla_knows_are_set(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")
    assert xla_flags.is_known("--xla_force_host_platform_device_count=8")
    assert not xla_flags.is_known("--xla_no_such_flag=true")
    assert xla_flags.quick() in ("", xla_flags.OLDER_EMITTERS)
