"""Omni-SMoLA (arXiv 2312.00968): low-rank experts, softly mixed, on a frozen linear layer.

    y_t = W x_t + sum_e C[t,e] * ( (sum_s D[s,e] x_s) W_in_e W_out_e )     W_in: d x r, W_out: r x o

"Omni" adds three such residuals: experts for visual tokens, for text tokens and for all of them,
each set with a router and softmaxes of its own. Here they are one router product over all slots,
masks on the dispatch and combine weights, and one batched low-rank product: no gathering and one
pass over the sequence. Projections of one input (q, k, v) go through it together.

W_out starts at zero, so that the model begins as the bare backbone. One slot per expert, as in the
published configurations.

In a decoder-only model (`prefix=True`) prompt and answer are one sequence. Slots are formed from
the prompt alone: tokens of the answer, `TokenKind.TARGET`, combine as text does but never dispatch,
so that nothing leaks from the future. Decoding token by token then needs what the slots read of the
prompt, (sum_s D[s,e] x_s) W_in_e: `record` keeps it, `recall` gives it back (see `attach`).
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts import soft_moe
from omni_smola.experts.param import ExpertParam
from omni_smola.spread import HIDDEN, OUT, SLOTS, WHOLE, WIDE, spread
from omni_smola.token_kinds import TokenKind

Array = jax.Array


class SlotVariable(nnx.Variable):
    """What the slots read of the prompt at hand: no parameter, and absent until recorded."""


@dataclasses.dataclass(frozen=True)
class SmolaConfig:
    """Sizes of the experts on one linear layer.

    Attributes:
      visual: experts that see visual tokens only (E_V).
      text: experts that see text tokens only (E_T).
      multimodal: experts that see every token but padding (E_MM).
      rank: r of the low-rank experts.
      router_rank: q of the factorised router Phi = A B, A: d x q; None means a full Phi.
      share_router: linears that read the same input (q, k, v; wi_0, wi_1) share one router.
      scale_init: start of the router's temperature, one per set; the method's code has 1.
    """

    visual: int = 16
    text: int = 16
    multimodal: int = 16
    rank: int = 4
    router_rank: int | None = None
    share_router: bool = False
    scale_init: float = 1.0

    def __post_init__(self) -> None:
        for name in ("visual", "text", "multimodal"):
            if getattr(self, name) < 0:
                raise UserError(
                    f"experts.{name} is {getattr(self, name)}, but a number of experts is 0 or "
                    f"more: set --config.experts.{name}=16, or 0 to leave this set out."
                )
        if not sum(self.set_sizes):
            raise UserError(
                "experts.visual, experts.text and experts.multimodal are all 0, so Omni-SMoLA has "
                "no experts: make one of them positive, or set --config.experts.method=none."
            )
        for name in ("rank", "router_rank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(
                    f"experts.{name} is {value}, but a rank is 1 or more: "
                    f"set --config.experts.{name}=4."
                )

    @property
    def set_sizes(self) -> tuple[int, int, int]:
        """Experts in the visual, text and multimodal sets, in the order of the slot axis."""
        return (self.visual, self.text, self.multimodal)

    @property
    def slots(self) -> int:
        """Slots of one router."""
        return sum(self.set_sizes)


def allowed_slots(kinds: Array, set_sizes: tuple[int, int, int]) -> Array:
    """Which token may use which slot.

    Args:
      kinds: (b, m) int32 of `TokenKind`.
      set_sizes: experts in the visual, text and multimodal sets.

    Returns:
      (b, m, slots) bool.
    """
    members = (kinds == TokenKind.VISUAL, kinds == TokenKind.TEXT, kinds != TokenKind.PADDING)
    return jnp.concatenate(
        [
            jnp.broadcast_to(member[:, :, None], (*kinds.shape, size))
            for member, size in zip(members, set_sizes, strict=True)
        ],
        axis=-1,
    )


class SmolaExperts(nnx.Module):
    """The residual of Omni-SMoLA for one or several linear layers that read the same input.

    With J routers (1 if shared, else one per output), K slots and width d, parameters are
    router (J, d, K) or its factors (J, d, q) and (J, q, K); scale (J, 3); w_in (outputs, K, d, r);
    w_out[name] (K, r, width of that output). All float32.
    """

    def __init__(
        self,
        config: SmolaConfig,
        d_in: int,
        outputs: Mapping[str, int],
        *,
        prefix: bool = False,
        rngs: nnx.Rngs,
    ):
        """prefix: whether tokens may be `TokenKind.TARGET`; else that rule costs nothing."""
        self.config = config
        self.names = tuple(outputs)
        self.prefix = prefix
        self.recording = False
        self.slots = nnx.data(None)
        routers = self._routers
        lecun = nnx.initializers.variance_scaling(
            1.0, "fan_in", "normal", in_axis=-2, out_axis=-1, batch_axis=0
        )
        if config.router_rank is None:
            self.router = ExpertParam(lecun(rngs.params(), (routers, d_in, config.slots)))
        else:
            q = config.router_rank
            self.router_in = ExpertParam(lecun(rngs.params(), (routers, d_in, q)))
            self.router_out = ExpertParam(lecun(rngs.params(), (routers, q, config.slots)))
        self.scale = ExpertParam(jnp.full((routers, 3), config.scale_init, jnp.float32))
        # Different for every expert: with w_out at zero only w_in can break their symmetry.
        self.w_in = ExpertParam(
            nnx.initializers.variance_scaling(
                1.0, "fan_in", "normal", in_axis=-2, out_axis=-1, batch_axis=(0, 1)
            )(rngs.params(), (len(outputs), config.slots, d_in, config.rank))
        )
        self.w_out = nnx.Dict(
            {
                name: ExpertParam(jnp.zeros((config.slots, config.rank, width), jnp.float32))
                for name, width in outputs.items()
            }
        )

    def slot_parameters(self) -> Array:
        """The router's Phi, (routers, d, slots)."""
        if self.config.router_rank is None:
            return self.router[...]
        return self.router_in[...] @ self.router_out[...]

    def router_logits(self, x: Array) -> Array:
        """x: (b, m, d) -> (b, m, routers * slots) float32."""
        phi = self.slot_parameters()
        routers, d, slots = phi.shape
        scale = jnp.repeat(
            self.scale[...], jnp.asarray(self.config.set_sizes), axis=1, total_repeat_length=slots
        )
        logits = soft_moe.router_logits(
            x, phi.transpose(1, 0, 2).reshape(d, routers * slots), scale.reshape(-1)
        )
        return spread(logits, HIDDEN)

    def dispatch(self, logits: Array, kinds: Array) -> Array:
        """Dispatch weights (b, m, routers, slots) float32; an answer has none."""
        if self.prefix:
            kinds = jnp.where(kinds == TokenKind.TARGET, TokenKind.PADDING, kinds)
        return self._per_router(soft_moe.dispatch_weights(logits, self._allowed(kinds)))

    def combine(self, logits: Array, kinds: Array) -> Array:
        """Combine weights (b, m, routers, slots) float32; an answer's are those of text."""
        if self.prefix:
            kinds = jnp.where(kinds == TokenKind.TARGET, TokenKind.TEXT, kinds)
        sizes = self.config.set_sizes * self._routers
        return self._per_router(soft_moe.combine_weights(logits, sizes, self._allowed(kinds)))

    def routing(self, x: Array, kinds: Array) -> tuple[Array, Array]:
        """Dispatch and combine weights, (b, m, routers, slots) float32 each."""
        logits = self.router_logits(x)
        return self.dispatch(logits, kinds), self.combine(logits, kinds)

    def read(self, x: Array, dispatch: Array) -> list[Array]:
        """What each output's slots read, (b, slots, r): the means of tokens times W_in."""
        dtype = x.dtype
        batch, tokens, routers, slots = dispatch.shape
        means = jnp.einsum(
            "bmk,bmd->bkd", dispatch.astype(dtype).reshape(batch, tokens, routers * slots), x
        ).reshape(batch, routers, slots, -1)
        w_in = spread(self.w_in[...].astype(dtype), WHOLE)
        return [
            spread(jnp.einsum("bkd,kdr->bkr", means[:, self._router(j)], w_in[j]), HIDDEN)
            for j in range(len(self.names))
        ]

    def record(self) -> None:
        """Lets the next call keep what the slots read of its tokens, for `recorded`."""
        self.recording = True

    def recorded(self) -> Array:
        """(b, outputs, slots, r): what the slots read since `record`."""
        return self.slots[...]

    def recall(self, slots: Array) -> None:
        """Lets calls combine from what `recorded` gave, whatever their own tokens are.

        As `record`, to be called on the copy of a layer that a loop's body has made.
        """
        self.slots = SlotVariable(slots)

    def __call__(self, x: Array, kinds: Array) -> dict[str, Array]:
        """x: (b, m, d), kinds: (b, m) -> the residual of every output, (b, m, width)."""
        dtype = x.dtype
        logits = self.router_logits(x)
        if self.slots is None:
            hidden = self.read(x, self.dispatch(logits, kinds))
        else:
            hidden = [self.slots[:, j] for j in range(len(self.names))]
        if self.recording:
            self.slots = SlotVariable(jnp.stack(hidden, axis=1))
        combine = self.combine(logits, kinds).astype(dtype)
        residuals = {}
        for j, name in enumerate(self.names):
            w_out = spread(self.w_out[name][...].astype(dtype), OUT)
            out = spread(jnp.einsum("bkr,kro->bko", hidden[j], w_out), SLOTS)
            residual = jnp.einsum("bmk,bko->bmo", combine[:, :, self._router(j)], out)
            residuals[name] = spread(residual, WIDE)
        return residuals

    @property
    def _routers(self) -> int:
        return 1 if self.config.share_router else len(self.names)

    def _router(self, output: int) -> int:
        return 0 if self.config.share_router else output

    def _allowed(self, kinds: Array) -> Array:
        return jnp.tile(allowed_slots(kinds, self.config.set_sizes), (1, 1, self._routers))

    def _per_router(self, weights: Array) -> Array:
        return weights.reshape(*weights.shape[:2], self._routers, self.config.slots)
