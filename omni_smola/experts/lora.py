"""LoRA (arXiv 2106.09685): the baseline with one low-rank residual and no routing.

y = W x + (alpha / r) * x W_in W_out        W_out starts at zero
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts.param import ExpertParam

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """`rank`, and the numerator `alpha` of the residual's scale alpha / rank."""

    rank: int = 16
    alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(
                f"experts.rank is {self.rank}, but a rank is 1 or more: "
                "set --config.experts.rank=16."
            )


class Lora(nnx.Module):
    """LoRA on one or several linear layers that read the same input; float32 parameters."""

    def __init__(
        self, config: LoraConfig, d_in: int, outputs: Mapping[str, int], *, rngs: nnx.Rngs
    ):
        self.config = config
        self.names = tuple(outputs)
        lecun = nnx.initializers.lecun_normal()
        self.w_in = nnx.Dict(
            {name: ExpertParam(lecun(rngs.params(), (d_in, config.rank))) for name in outputs}
        )
        self.w_out = nnx.Dict(
            {
                name: ExpertParam(jnp.zeros((config.rank, width), jnp.float32))
                for name, width in outputs.items()
            }
        )

    def __call__(self, x: Array, kinds: Array) -> dict[str, Array]:
        """x: (b, m, d) -> the residual of every output, (b, m, width); kinds are ignored."""
        del kinds
        scale = self.config.alpha / self.config.rank
        return {
            name: (x @ self.w_in[name][...].astype(x.dtype))
            @ self.w_out[name][...].astype(x.dtype)
            * scale
            for name in self.w_in
        }
