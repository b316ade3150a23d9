"""A bottleneck adapter parallel to a feed-forward: the baseline, and MoLE's expert.

y = s * ( W_up relu(W_down x + b) + b' )    s init 1, W_up and both biases zero (arXiv 2407.12709)
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts.param import ExpertParam

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """`rank` is the width of the bottleneck (64 in the paper)."""

    rank: int = 64

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(
                f"experts.rank is {self.rank}, but an adapter's width is 1 or more: "
                "set --config.experts.rank=64."
            )


class Adapter(nnx.Module):
    """The adapter's residual; float32 parameters."""

    def __init__(self, config: AdapterConfig, d_model: int, *, rngs: nnx.Rngs):
        self.config = config
        width = config.rank
        lecun = nnx.initializers.lecun_normal()
        self.down = ExpertParam(lecun(rngs.params(), (d_model, width)))
        self.down_bias = ExpertParam(jnp.zeros((width,), jnp.float32))
        self.up = ExpertParam(jnp.zeros((width, d_model), jnp.float32))
        self.up_bias = ExpertParam(jnp.zeros((d_model,), jnp.float32))
        self.scale = ExpertParam(jnp.ones((), jnp.float32))

    def __call__(self, x: Array, kinds: Array) -> Array:
        """x: (b, m, d) -> (b, m, d); kinds are ignored."""
        del kinds
        dtype = x.dtype
        hidden = nnx.relu(x @ self.down[...].astype(dtype) + self.down_bias[...].astype(dtype))
        up = hidden @ self.up[...].astype(dtype) + self.up_bias[...].astype(dtype)
        return up * self.scale[...].astype(dtype)
