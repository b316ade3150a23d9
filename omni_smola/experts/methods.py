"""The kinds of experts by name: how each is attached, and how a model says which ones it has.

`attach_experts` turns a config and a pattern into experts on a model. `attached` reads the
opposite way: it describes the experts of a model by plain values, and `attach_again` gives another
model the same ones. Files of experts (`omni_smola.experts_file`) hold these descriptions.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts import attach
from omni_smola.experts.adapter import Adapter, AdapterConfig
from omni_smola.experts.lora import Lora, LoraConfig
from omni_smola.experts.mole import Mole, MoleConfig
from omni_smola.experts.smola import SmolaConfig, SmolaExperts

ExpertConfig = SmolaConfig | LoraConfig | AdapterConfig | MoleConfig


@dataclasses.dataclass(frozen=True)
class Method:
    """One kind of expert.

    Attributes:
      config: the class of its sizes.
      module: the class of its layer.
      linears: whether it sits on linears; else it sits beside feed-forwards.
      routed: whether it mixes tokens, see `attach.attach_to_linears`.
      arguments: what the layer's class takes beside its sizes, and keeps under the same name.
    """

    config: type
    module: type[nnx.Module]
    linears: bool
    routed: bool = False
    arguments: tuple[str, ...] = ()


METHODS = {
    "smola": Method(SmolaConfig, SmolaExperts, linears=True, routed=True),
    "lora": Method(LoraConfig, Lora, linears=True),
    "adapter": Method(AdapterConfig, Adapter, linears=False),
    "mole": Method(MoleConfig, Mole, linears=False, arguments=("instruction_width",)),
}


@dataclasses.dataclass(frozen=True)
class Attached:
    """Experts of one kind and size, and where they sit.

    Attributes:
      method: a key of `METHODS`, or the name of a class that is not in that table.
      config: the fields of its config and its `Method.arguments`; empty for such a class.
      paths: of the linears or feed-forwards, as `attach.attach_to_linears` returns them.
    """

    method: str
    config: dict[str, Any]
    paths: tuple[str, ...]


def attach_experts(
    model: nnx.Module, config: ExpertConfig, where: str | Sequence[str], *, rngs: nnx.Rngs
) -> list[str]:
    """Puts experts on the layers of a model, in place.

    `SmolaConfig` and `LoraConfig` go on linears, `AdapterConfig` and `MoleConfig` go beside
    feed-forwards. A fresh expert adds nothing: the model computes what it computed before.

    Args:
      model: a built model, see `attach`.
      config: the sizes of the experts; its class says which kind.
      where: one or several regular expressions, each for whole paths, such as `encoder/.*`.
      rngs: the source of the initial values.

    Returns:
      The paths that got experts.

    Raises:
      UserError: a pattern matches nothing, or experts that mix tokens would read a causal sequence.
    """
    for name, method in METHODS.items():
        if type(config) is method.config:
            return _attach(model, name, config, _arguments(method, model), where, rngs)
    raise UserError(
        f"The experts' config is of the class {type(config).__name__}; choose one of "
        f"{', '.join(method.config.__name__ for method in METHODS.values())}."
    )


def attached(model: nnx.Module) -> list[Attached]:
    """The experts of a model, in an order in which `attach_again` can attach them."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for _, _, child, path, _ in attach.children(model):
        if not isinstance(child, _WRAPPERS):
            continue
        # Experts on a layer that already had some sit on its `base`, which exists only then.
        depth = path.split("/").count("base")
        name, config = _described(child.experts)
        key = depth, name, tuple(config.items())
        found.setdefault(key, []).extend(_layer_paths(child, path))
    return [
        Attached(name, dict(config), tuple(paths))
        for (_, name, config), paths in sorted(found.items(), key=lambda item: item[0][0])
    ]


def attach_again(model: nnx.Module, experts: Sequence[Attached], *, rngs: nnx.Rngs) -> None:
    """Gives `model` the experts that `attached` has described, with fresh values, in place.

    Raises:
      UserError: a kind or a field that this version does not know, or a path that the model lacks.
    """
    for one in experts:
        method = METHODS.get(one.method)
        if method is None:
            raise UserError(
                f"The experts are of the kind {one.method!r}, which is attached by its own code: "
                f"attach it first, then load. Known kinds are {', '.join(METHODS)}."
            )
        fields = dict(one.config)
        try:
            given = {argument: fields.pop(argument) for argument in method.arguments}
            config = method.config(**fields)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"The description of the {one.method} experts does not fit this version of "
                f"omni_smola ({error}): install the version that wrote it."
            ) from error
        _attach(model, one.method, config, given, [re.escape(path) for path in one.paths], rngs)


def _attach(
    model: nnx.Module,
    name: str,
    config: ExpertConfig,
    given: dict[str, Any],
    where: str | Sequence[str],
    rngs: nnx.Rngs,
) -> list[str]:
    method = METHODS[name]
    make: Callable[..., nnx.Module] = functools.partial(method.module, config, **given)
    if method.linears:
        return attach.attach_to_linears(model, where, make, rngs=rngs, routed=method.routed)
    return attach.attach_to_feed_forwards(model, where, make, rngs=rngs)


def _arguments(method: Method, model: nnx.Module) -> dict[str, Any]:
    for argument in method.arguments:
        if not hasattr(model, argument):
            raise UserError(
                f"{method.module.__name__} experts need the attribute {argument} of the model, but "
                f"{type(model).__name__} has none: set it to the width of what their routers read."
            )
    return {argument: getattr(model, argument) for argument in method.arguments}


def _described(experts: Any) -> tuple[str, dict[str, Any]]:
    kind = type(experts)
    for name, method in METHODS.items():
        if kind is method.module:
            return name, dataclasses.asdict(experts.config) | _arguments(method, experts)
    return kind.__name__, {}


def _layer_paths(wrapper: nnx.Module, path: str) -> list[str]:
    if not isinstance(wrapper, attach.ExpertProjection):
        return [path]
    names = getattr(wrapper.experts, "names", ())
    return [f"{path}/{name}" for name in names] or [path]


_WRAPPERS = (attach.ExpertProjection, attach.ExpertFeedForward, attach.ExpertLinear)
