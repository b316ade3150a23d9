"""TPUs that are not there, by name: `v5p:4x4x4` -> its chips, their memory and their speed."""

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping, Sequence

import jax

from omni_smola.errors import UserError, first_line

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation of TPU.

    Attributes:
      hbm: bytes of memory of a chip. flops: bfloat16 operations per second of a chip.
      largest: chips along each axis that a slice has at most.
      cores: config of the compiler's description under which a chip is one device; "" is its own.
    """

    hbm: int
    flops: float
    largest: tuple[int, ...]
    cores: str = ""


# Memory and peak as the vendor's pages give them (cloud.google.com/tpu/docs, v4 to v6e). A slice's
# bounds are theirs too: beyond 16 x 16, the compiler of v5e ends its process.
CHIPS: Mapping[str, Chip] = {
    "v4": Chip(32 * GIB, 275e12, (16, 16, 16), cores="megacore"),
    "v5e": Chip(16 * GIB, 197e12, (16, 16)),
    "v5p": Chip(95 * GIB, 459e12, (16, 16, 24)),
    "v6e": Chip(32 * GIB, 918e12, (16, 16)),
}
_OTHER_NAMES = {"v5lite": "v5e", "v5litepod": "v5e", "trillium": "v6e", "v6lite": "v6e"}
EXAMPLES = "v5e:4x4, v6e:16x16, v5p:4x4x4, v4:2x2x1"


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice: `name` as typed, its `chip`'s generation, and chips along each axis."""

    name: str
    generation: str
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        """What each chip has."""
        return CHIPS[self.generation]

    @property
    def chips(self) -> int:
        """Chips of the slice."""
        return math.prod(self.shape)


def parse(name: str | None) -> Topology:
    """The topology called `name`; raises UserError for one that cannot be."""
    if not name:
        raise UserError(
            f"--mode=compile needs a topology: add --topology=NAME, such as one of {EXAMPLES}."
        )
    found = re.fullmatch(r"([a-z0-9]+):(\d+(?:x\d+)*)", name)
    generation = found and _OTHER_NAMES.get(found[1], found[1])
    if generation not in CHIPS:
        close = difflib.get_close_matches(name.split(":")[0], CHIPS, n=1)
        raise UserError(
            f"There is no topology {name!r}: write a TPU's generation, one of {', '.join(CHIPS)}, "
            f"a colon and its chips along each axis, such as {EXAMPLES}"
            + (f"; did you mean {close[0]}:...?" if close else ".")
        )
    shape = tuple(map(int, found[2].split("x")))
    largest = CHIPS[generation].largest
    within = len(shape) == len(largest) and all(
        1 <= n <= most for n, most in zip(sorted(shape), sorted(largest), strict=True)
    )
    if not within:
        raise UserError(
            f"The topology {name} cannot be: a slice of {generation} has {len(largest)} axes and "
            f"at most {'x'.join(map(str, largest))} chips."
        )
    return Topology(f"{generation}:{found[2]}", generation, shape)


def devices(topology: Topology) -> Sequence[jax.Device]:
    """The compiler's description of the slice, one device for each chip.

    Raises:
      UserError: libtpu is not installed, or knows no such slice.
    """
    from jax.experimental import topologies

    options = {"chip_config_name": topology.chip.cores} if topology.chip.cores else {}
    try:
        found = topologies.get_topology_desc(topology.name, "tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        why = first_line(error).removeprefix("INVALID_ARGUMENT: ").rstrip(".")
        raise UserError(
            f"The TPU compiler has no topology {topology.name}: {why}. Choose one such as "
            f"{EXAMPLES}."
        ) from error
    if len(found) != topology.chips:
        raise UserError(
            f"The TPU compiler describes {topology.name} by {len(found)} devices instead of "
            f"{topology.chips}, one for each chip: choose another, such as {EXAMPLES}."
        )
    return found


def require_compiler() -> None:
    """Raises UserError where libtpu, which holds the TPU's compiler, is not installed."""
    import importlib.util

    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "--mode=compile needs the TPU's compiler, the package libtpu, which is not installed: "
            "run pip install 'omni_smola[compile]'. It needs no TPU."
        )
