"""The table of path -> partition: where parameters and optimiser statistics lie on a mesh.

Frozen weights have a degree of their own. They need no gradient and no optimiser state, so what
fits is better copied to every group of `tensor` devices than gathered at every step.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omni_smola.errors import UserError
from omni_smola.trees import paths

AXES = ("data", "fsdp", "tensor")


class Rule(NamedTuple):
    """One line of the table.

    Attributes:
      pattern: searched in the path.
      spec: partition of the LAST dimensions; leading ones (the stacked layer, the router of a
        group) stay whole.
      refuse: what `tensor` must divide, in words, or the run is refused. Any other dimension that
        an axis does not divide stays whole.
      unit: heads or key_heads, where `tensor` takes whole ones of them.
      otherwise: a partition to take instead where `spec` does not divide, and this does.
    """

    pattern: str
    spec: tuple = ()
    refuse: str = ""
    unit: str = ""
    otherwise: tuple = ()


# Of experts that `fsdp` does not divide.
_WIDTH = (None, None, ("tensor", "fsdp"))

# First match wins. Column-parallel before row-parallel matmuls need one reduction per block. A
# table of embeddings is divided by width, so that a look-up moves nothing but its result; one that
# is the head too (called head/embedding here) by words, or logits would be sums over devices.
_TOWER = r"(^|/)(vision|encoders|sentence)/(.+/)?"
RULES = (
    Rule(r"experts/w_in", ("fsdp", None, None), otherwise=(None, "fsdp", None)),
    Rule(r"experts/w_out/q$", ("fsdp", None, "tensor"), unit="heads", otherwise=_WIDTH),
    Rule(r"experts/w_out/[kv]$", ("fsdp", None, "tensor"), unit="key_heads", otherwise=_WIDTH),
    Rule(r"experts/w_out", ("fsdp", None, "tensor"), otherwise=_WIDTH),
    Rule(r"experts/router", ("fsdp", None)),
    Rule(r"experts/(down|up)$", ("fsdp", None)),
    Rule(_TOWER + r"qkv/kernel", ("fsdp", "tensor"), unit="heads"),
    Rule(_TOWER + r"out/kernel", ("tensor", "fsdp"), unit="heads"),
    Rule(r"/(qkv|q)/(base/)?kernel/q$", ("fsdp", "tensor"), refuse="heads", unit="heads"),
    Rule(r"/(qkv|kv)/(base/)?kernel/[kv]$", ("fsdp", "tensor"), unit="key_heads"),
    Rule(r"/out/(base/)?kernel/o$", ("tensor", "fsdp"), refuse="heads", unit="heads"),
    Rule(r"head/(base/)?kernel", ("fsdp", "tensor"), refuse="words"),
    Rule(r"head/embedding$", ("tensor", "fsdp"), refuse="words"),
    Rule(r"embedding$", (None, ("fsdp", "tensor"))),
    Rule(r"(wi|patch|visual_projection)/(base/)?kernel", ("fsdp", "tensor")),
    Rule(r"(out|wo)/(base/)?kernel", ("tensor", "fsdp")),
    Rule(r""),
)


def parse_frozen(text: str) -> tuple[str, ...]:
    """`config.mesh.frozen` -> axes: "fsdp+tensor" -> ("fsdp", "tensor"); raises UserError."""
    axes = tuple(filter(None, text.split("+")))
    if not set(axes) <= set(AXES) or len(set(axes)) < len(axes):
        raise UserError(
            f"config.mesh.frozen is {text!r}, but it names the axes that frozen weights are "
            f"divided over, each of {', '.join(AXES)} at most once, joined by +: set "
            "--config.mesh.frozen=tensor, or =fsdp+tensor where they do not fit otherwise."
        )
    return tuple(axis for axis in AXES if axis in axes)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where everything of one model lies on one mesh.

    Attributes:
      frozen: axes that frozen weights are divided over; on the others every device has a copy.
      heads: path of an attention -> its heads and its key heads.
      tied: whether the table of embeddings is the head, too.
    """

    mesh: Mesh
    frozen: tuple[str, ...] = ("tensor",)
    heads: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    tied: bool = False

    @classmethod
    def of(cls, mesh: Mesh, frozen: str, model: nnx.Module) -> "Layout":
        """That of a model, abstract or not; `frozen` as in the config."""
        heads = {}
        for path, module in nnx.iter_modules(model):
            sizes = module if hasattr(module, "heads") else getattr(module, "config", None)
            if isinstance(count := getattr(sizes, "heads", None), int):
                heads["/".join(map(str, path))] = (count, getattr(sizes, "key_heads", count))
        tied = hasattr(model, "embedding") and getattr(model, "head", None) is None
        return cls(mesh, parse_frozen(frozen), heads, tied)

    def place(self, path: str, shape: Sequence[int], *, frozen: bool = False) -> NamedSharding:
        """Where a parameter lies, or an optimiser statistic with its path."""
        return NamedSharding(self.mesh, PartitionSpec(*self._fit(path, shape, frozen)[2]))

    def tree(self, tree: Any, *, frozen: bool = False) -> Any:
        """The sharding of every leaf of a nested dict or optimiser state."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: self.place(
                jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape, frozen=frozen
            ),
            tree,
        )

    def check(self, *trees: Any) -> None:
        """Raises UserError where `tensor` does not divide what the table says that it must."""
        tensor = self.mesh.shape["tensor"]
        for path, leaf in (item for tree in trees for item in paths(tree).items()):
            rule, wanted, _ = self._fit(path, leaf.shape, False)
            for axis, size in zip(wanted, leaf.shape, strict=True):
                count = self._units(rule, path, axis, size)
                if rule.refuse and "tensor" in _names(axis) and count % tensor:
                    raise UserError(
                        f"config.mesh.tensor is {tensor}, which does not divide the {count} "
                        f"{rule.refuse} of {path}: set "
                        f"--config.mesh.tensor={math.gcd(count, tensor)}, and data or fsdp to the "
                        "rest."
                    )

    def table(self, trees: Mapping[str, Any]) -> list[str]:
        """What lies where: a line for every pattern of every tree that has such leaves.

        Args:
          trees: "frozen" and "trained" -> nested dict of (abstract) arrays; "optimizer" ->
            its state, whose statistics lie as what they are of and get one line.
        """
        rows: dict[tuple[str, Rule], list[int]] = {}
        for name, tree in trees.items():
            for path, leaf in paths(tree).items():
                rule, wanted, fitted = self._fit(path, leaf.shape, name == "frozen")
                size = math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
                here = size // math.prod(map(self._size, fitted))
                rule = Rule("as what is trained") if name == "optimizer" else rule
                row = rows.setdefault((name, rule), [0, 0, 0, 0])
                for i, value in enumerate((1, wanted != fitted, size, here)):
                    row[i] += value
        lines = [("", "pattern", "last dimensions", "arrays", "undivided", "bytes", "a device")]
        for (name, rule), (arrays, odd, *sizes) in rows.items():
            spec = " or ".join(
                " ".join(
                    "+".join(_names(self._over(axis, name == "frozen"))) or "-" for axis in axes
                )
                for axes in filter(None, (rule.spec, rule.otherwise))
            )
            counts = (str(arrays), str(odd) if odd else "")
            lines.append((name, rule.pattern or "all else", spec, *counts, *map(_bytes, sizes)))
        total = [_bytes(sum(row[i] for row in rows.values())) for i in (2, 3)]
        lines.append(("total", "", "", str(sum(row[0] for row in rows.values())), "", *total))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return ["  ".join(map(str.ljust, line, widths)).strip() for line in lines]

    def _fit(self, path: str, shape: Sequence[int], frozen: bool) -> tuple[Rule, tuple, tuple]:
        """The rule of a path, its partition of every dimension, and what of it divides."""
        name = re.sub(r"(^|/)embedding$", r"\1head/embedding", path) if self.tied else path
        rule = next(rule for rule in RULES if re.search(rule.pattern, name))
        wanted, fitted = self._divide(rule, rule.spec, path, shape, frozen)
        if rule.otherwise and fitted != wanted:
            instead, divided = self._divide(rule, rule.otherwise, path, shape, frozen)
            if divided == instead:
                return rule, instead, divided
        return rule, wanted, fitted

    def _divide(
        self, rule: Rule, spec: tuple, path: str, shape: Sequence[int], frozen: bool
    ) -> tuple[tuple, tuple]:
        """A partition of every dimension, and what of it divides."""
        spec = ((None,) * len(shape) + spec)[-len(shape) :] if shape else ()
        wanted = tuple(self._over(axis, frozen) for axis in spec)
        tensor = self.mesh.shape["tensor"]
        fitted = tuple(
            None
            if size % self._size(axis) or self._units(rule, path, axis, size) % tensor
            else axis
            for axis, size in zip(wanted, shape, strict=True)
        )
        return wanted, fitted

    def _over(self, axis: Any, frozen: bool) -> Any:
        """An entry of the table; for frozen weights, what they are divided over in its place."""
        if not frozen:
            return axis
        names = [("data", "fsdp") if name == "fsdp" else (name,) for name in _names(axis)]
        over = set(self.frozen)
        # Weights over fsdp but not over data gave wrong logits where all three axes are above 1
        # (XLA on CPUs, tests/models/test_spread.py): there fsdp takes data along.
        if "fsdp" in over and all(self.mesh.shape[name] > 1 for name in AXES):
            over.add("data")
        ours = tuple(name for group in names for name in group if name in over)
        return ours if len(ours) > 1 else ours[0] if ours else None

    def _units(self, rule: Rule, path: str, axis: Any, size: int) -> int:
        """How many of what `tensor` must not tear a dimension has: channels, or heads."""
        if "tensor" not in _names(axis):
            return 0
        if not rule.unit:
            return size
        owners = (at for at in self.heads if f"/{at}/" in f"/{path}")
        own = max(owners, key=len, default=None)
        return size if own is None else self.heads[own][rule.unit == "key_heads"]

    def _size(self, axis: Any) -> int:
        return math.prod(self.mesh.shape[name] for name in _names(axis))


def _names(axis: Any) -> tuple[str, ...]:
    return () if axis is None else axis if isinstance(axis, tuple) else (axis,)


def _bytes(size: int) -> str:
    """1536 -> "1.5 KiB"."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.1f} {units[0]}" if units[0] != "B" else f"{size} B"
