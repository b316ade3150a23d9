"""XLA's flags that the tests set, of those that the installed jaxlib knows.

XLA ends a process whose `XLA_FLAGS` hold a flag that it doesn't know, and jaxlib drops flags with
its releases.
"""

import functools
import os
import subprocess
import sys

# The older emitters halve the time of compiling. jaxlib 0.12 has them no more.
OLDER_EMITTERS = "--xla_cpu_use_fusion_emitters=false"


def quick() -> str:
    """The flags that have programs compiled quickly, or "" where jaxlib has none."""
    return OLDER_EMITTERS if is_known(OLDER_EMITTERS) else ""


@functools.cache
def is_known(flag: str) -> bool:
    """Whether the installed jaxlib reads `flag`; tried in a process of its own, in 0.3 seconds."""
    if flag in os.environ.get("XLA_FLAGS", "").split():
        return True  # pytest-xdist's workers inherit what their parent has tried
    # XLA reads its flags, and no device starts.
    command = [sys.executable, "-c", "from jaxlib import xla_client; xla_client.CompileOptions()"]
    tried = subprocess.run(command, env=os.environ | {"XLA_FLAGS": flag}, capture_output=True)
    return tried.returncode == 0
