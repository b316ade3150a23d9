"""Collects the tests as where modules are missing that extras bring.

    python -m tests.missing torch,transformers libtpu

collects once for each argument, in forks of one process that has done the slow imports, and ends
with status 0 if no test module failed.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest


class Without(importlib.abc.MetaPathFinder):
    """Another finder that doesn't find some modules."""

    def __init__(self, finder: Any, names: Sequence[str]):
        self._finder, self._names = finder, frozenset(names)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in self._names:
            return None
        return self._finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def hide(names: Sequence[str]) -> None:
    """From now on `import` and `importlib.util.find_spec` don't find these modules."""
    for loaded in [each for each in sys.modules if each.partition(".")[0] in names]:
        del sys.modules[loaded]
    sys.meta_path[:] = [Without(finder, names) for finder in sys.meta_path]


def collects(names: Sequence[str]) -> bool:
    """Whether every test module is collected or skipped without these modules, in a fork."""
    print(f"== without {', '.join(names)}", flush=True)
    pid = os.fork()
    if not pid:
        hide(names)
        os._exit(
            pytest.main(["--collect-only", "-qqq", "-n0", "--assert=plain", "-pno:cacheprovider"])
        )
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def main(sets: Sequence[str]) -> int:
    import flax.nnx  # noqa: F401
    import orbax.checkpoint  # noqa: F401
    import seqio  # noqa: F401

    from . import conftest  # noqa: F401  the environment that JAX and TensorFlow are imported in

    collected = [collects(names.split(",")) for names in sets]
    return 0 if all(collected) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
