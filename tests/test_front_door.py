"""What `import omni_smola` gives, and that all of it works where TensorFlow is not installed."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

import omni_smola

from .conftest import QUICKLY, ROOT

# Run before anything else: these are as if they were not installed.
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        absent = ("tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio", "tensorboard",
                  "tensorboardX", "ml_collections.config_flags")
        if any(name == one or name.startswith(one + ".") for one in absent):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
EXAMPLE = """
import runpy
import numpy as np
import omni_smola as smola
from omni_smola.experts.values import expert_parameters

done = runpy.run_path(EXAMPLE)
model, batch = done["model"], done["batch"]
answers = smola.generate(model, batch)
print(answers)
references = [[colour] for colour in done["colours"]]
print(smola.METRICS["exact_match"](answers, references)["exact_match"])

again = smola.load_backbone("tiny")
card = smola.load_experts("french.safetensors", again)
assert card["backbone"]["name"] == "tiny" and card["backbone"]["frame"] == "eos"
for path, value in expert_parameters(model).items():
    np.testing.assert_array_equal(value, expert_parameters(again)[path])
assert smola.generate(again, batch) == answers
assert not {"tensorflow", "seqio", "ml_collections"} & set(sys.modules)  # nor imported
"""


def python(code: str, folder: pathlib.Path) -> list[str]:
    """The lines that a fresh interpreter prints."""
    env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=env | QUICKLY | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_first_steps_without_tensorflow(tmp_path):
    """The example, a metric, and its experts on a fresh backbone."""
    code = EXAMPLE.replace("EXAMPLE", repr(str(ROOT / "examples" / "first_steps.py")))
    printed, answers, score = python(WITHOUT + code, tmp_path)
    assert printed == answers == "['rouge', 'bleu', 'vert']" and score == "100.0"


def test_the_page_has_the_example():
    """The lines of the example, without its docstring, are those of the page."""
    example = (ROOT / "examples" / "first_steps.py").read_text().split('"""\n\n', 1)[1]
    assert f"```python\n{example}```\n" in (ROOT / "README.md").read_text()


def test_every_public_name_is_found_without_tensorflow(tmp_path):
    code = """
import omni_smola
assert "jax" not in sys.modules
print(*(type(getattr(omni_smola, name)).__name__ for name in omni_smola.__all__))
print(set(omni_smola.__all__) <= set(dir(omni_smola)))
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized())
"""
    kinds, listed, started = python(WITHOUT + code, tmp_path)
    assert len(kinds.split()) == len(omni_smola.__all__) and (listed, started) == ("True", "False")


def test_editors_see_the_same_names():
    """Those imported under TYPE_CHECKING, from the modules that they come from."""
    tree = ast.parse(pathlib.Path(omni_smola.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module.removeprefix("omni_smola.")
        for node in block.body
        for alias in node.names
        if alias.name == alias.asname
    }
    assert seen == omni_smola._PLACES


def test_what_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="module 'omni_smola' has no attribute 'nothing'"):
        _ = omni_smola.nothing
    with pytest.raises(ImportError):
        from omni_smola import nothing  # noqa: F401
