"""Floating-point operations of a program, counted in its jaxpr, through its loops.

The compilers' own cost analysis counts the body of a loop once, so that 48 layers in one scan look
like one. Here the products (dots and convolutions) are counted, which are nearly all of a
transformer; elementwise work is not.
"""

import dataclasses
import math
from typing import Any

from jax.extend import core


@dataclasses.dataclass
class Flops:
    """A count.

    Attributes:
      total: multiplications and additions, two for each pair.
      loops: the most rounds that were counted for each loop whose end depends on its values, such
        as decoding, which may end early. -1: unknown, and counted once.
    """

    total: int = 0
    loops: list[int] = dataclasses.field(default_factory=list)


def count(jaxpr: core.ClosedJaxpr) -> Flops:
    """Those of one call of a traced function, of all devices together."""
    flops = Flops()
    flops.total = _count(jaxpr.jaxpr, flops.loops)
    return flops


def _count(jaxpr: core.Jaxpr, loops: list[int]) -> int:
    return sum(_equation(eqn, loops) for eqn in jaxpr.eqns)


def _equation(eqn: core.JaxprEqn, loops: list[int]) -> int:
    name, params = eqn.primitive.name, eqn.params
    if name == "dot_general":
        return _dot(eqn)
    if name == "conv_general_dilated":
        return _convolution(eqn)
    if name == "scan":
        return params["length"] * _count(params["jaxpr"].jaxpr, loops)
    if name == "while":
        rounds = _rounds(params["cond_jaxpr"].jaxpr)
        loops.append(rounds)
        return max(rounds, 1) * _count(params["body_jaxpr"].jaxpr, loops)
    if name == "cond":
        return max(_count(branch.jaxpr, loops) for branch in params["branches"])
    return sum(_count(inner, loops) for value in params.values() for inner in _inside(value))


def _inside(value: Any) -> list[core.Jaxpr]:
    """The jaxprs that a parameter of an equation holds."""
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    if isinstance(value, tuple | list):
        return [jaxpr for item in value for jaxpr in _inside(item)]
    return []


def _dot(eqn: core.JaxprEqn) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _convolution(eqn: core.JaxprEqn) -> int:
    kernel = eqn.invars[1].aval.shape
    spec = eqn.params["dimension_numbers"].rhs_spec  # (out channels, in channels, *window)
    return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel[i] for i in spec[1:])


def _rounds(condition: core.Jaxpr) -> int:
    """The most rounds of a loop that counts from 0 by 1 and ends at a constant; -1 if unknown."""
    bounds = [
        int(eqn.invars[1].val)
        for eqn in condition.eqns
        if eqn.primitive.name == "lt"
        and isinstance(eqn.invars[1], core.Literal)
        and eqn.invars[0].aval.shape == ()
        and eqn.invars[0].aval.dtype.kind == "i"
    ]
    return min(bounds, default=-1)
