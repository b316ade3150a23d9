"""MoLE (arXiv 2407.12709): K adapters parallel to a feed-forward, one chosen by a router.

    y_k = s_k * ( W_up_k relu(W_down_k x + b_k) + b'_k )      d -> r -> d, as in `adapter.Adapter`
    p   = softmax( W_2 gelu(W_1 I + b_1) + b_2 )              I: embedding of the instruction
    out = g y_k*      k* = argmax p,   g = 1 with the gradient of p_k* (straight through)

MoME routes by instance: all tokens of an example go to the expert that its instruction chooses.
The ablations route by token, I = x, or by both, I = [x ; instruction].

Only what was chosen is computed: weights are gathered for each block of tokens that share an
expert, and all blocks go through two batched products. By instance, an example is a block, and
FLOPs do not depend on K. By token, see `token_blocks`: at most a quarter more rows are computed.

A model is told its instructions by `attach.set_instruction` before it is called.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts import token_blocks
from omni_smola.experts.param import ExpertParam
from omni_smola.token_kinds import TokenKind

Array = jax.Array
ROUTES = ("instance", "token", "both")
# Dimensions of an adapter's parameters; whatever comes before is the axis of a stack.
DIMENSIONS = {"down": 2, "down_bias": 1, "up": 2, "up_bias": 1, "scale": 0}


class InstructionVariable(nnx.Variable):
    """The instructions at hand, or the key of their noise: no parameter, and absent until set."""


@dataclasses.dataclass(frozen=True)
class MoleConfig:
    """Sizes and routing of the experts parallel to one feed-forward.

    Attributes:
      experts: K; 1 is the plain adapter, without a router.
      rank: width of each expert's bottleneck.
      route: what the router reads: "instance" (the instruction), "token" or "both".
      gumbel: choose by p = softmax((logits + Gumbel noise) / temperature) in training.
      temperature: of that softmax.
    """

    experts: int = 4
    rank: int = 64
    route: str = "instance"
    gumbel: bool = False
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name, usual in (("experts", 4), ("rank", 64)):
            if getattr(self, name) < 1:
                raise UserError(
                    f"language.{name} is {getattr(self, name)}, but MoLE needs 1 or more: "
                    f"set --config.language.{name}={usual}."
                )
        if self.route not in ROUTES:
            raise UserError(
                f"language.route is {self.route!r}, but a MoLE router reads one of "
                f"{', '.join(ROUTES)}: set --config.language.route=instance."
            )
        if not 0 < self.temperature < float("inf"):
            raise UserError(
                f"language.temperature is {self.temperature}, but it divides logits and must be a "
                "number above 0: set --config.language.temperature=1.0."
            )


class Mole(nnx.Module):
    """The residual of MoLE for one feed-forward.

    Parameters, with K experts, width d, rank r and a router of width w (that of the instruction, of
    the token, or both together): down (K, d, r), down_bias (K, r), up (K, r, d), up_bias (K, d) and
    scale (K,) as in `Adapter`; router_in (w, w), router_in_bias (w,), router_out (w, K) and
    router_out_bias (K,), which K = 1 has not. All float32.
    """

    def __init__(self, config: MoleConfig, d_model: int, *, instruction_width: int, rngs: nnx.Rngs):
        count, rank = config.experts, config.rank
        self.config = config
        self.instruction_width = instruction_width
        # Different for every expert: with up at zero only down can break their symmetry.
        lecun = nnx.initializers.lecun_normal(batch_axis=0)
        self.down = ExpertParam(lecun(rngs.params(), (count, d_model, rank)))
        self.down_bias = ExpertParam(jnp.zeros((count, rank), jnp.float32))
        self.up = ExpertParam(jnp.zeros((count, rank, d_model), jnp.float32))
        self.up_bias = ExpertParam(jnp.zeros((count, d_model), jnp.float32))
        self.scale = ExpertParam(jnp.ones((count,), jnp.float32))
        self.instruction = nnx.data(None)
        self.key = nnx.data(None)
        if count == 1:
            return
        width = d_model * (config.route != "instance")
        width += instruction_width * (config.route != "token")
        lecun = nnx.initializers.lecun_normal()
        self.router_in = ExpertParam(lecun(rngs.params(), (width, width)))
        self.router_in_bias = ExpertParam(jnp.zeros((width,), jnp.float32))
        self.router_out = ExpertParam(lecun(rngs.params(), (width, count)))
        self.router_out_bias = ExpertParam(jnp.zeros((count,), jnp.float32))

    def instruct(self, instruction: Array, key: Array | None) -> None:
        """Takes the instructions (b, e) of the next batch, for every layer of the stack, if any.

        Raises:
          UserError: the instructions have another shape or width than the router reads.
        """
        if instruction.ndim != 2 or instruction.shape[1] != self.instruction_width:
            raise UserError(
                f"set_instruction was given an array of shape {instruction.shape}, but this MoLE "
                f"reads embeddings of shape (examples, {self.instruction_width}): give it one row "
                "per example, of the sentence encoder that the model was built for."
            )
        config, layers = self.config, self.down.shape[:-3]
        self.instruction = self.key = nnx.data(None)
        if config.experts > 1 and config.route != "token":
            value = jnp.broadcast_to(instruction, (*layers, *instruction.shape))
            self.instruction = InstructionVariable(value.astype(jnp.float32))
        if config.experts > 1 and config.gumbel and key is not None:
            self.key = InstructionVariable(jax.random.split(key, layers) if layers else key)

    def __call__(self, x: Array, kinds: Array) -> Array:
        """The chosen experts' residual.

        Args:
          x: (b, m, d). kinds: (b, m) of `TokenKind`; read by routing per token only, where padding
            goes to no expert.

        Returns:
          (b, m, d) in the dtype of x; 0 for padding if routed per token.

        Raises:
          UserError: no instruction was set, or not one for each example.
        """
        if self.config.experts == 1:
            # A block per example, as routed: products of blocks round alike, products of all
            # tokens at once would not, and stage 2 shall start to the bit where stage 1 ended.
            only = jax.lax.optimization_barrier(jnp.zeros(x.shape[:1], jnp.int32))
            return self._bottleneck(x, only)
        p = self._probabilities(self.logits(x))
        expert = jnp.argmax(p, axis=-1)
        chosen = jnp.take_along_axis(p, expert[..., None], axis=-1)
        if self.config.route == "instance":
            y, chosen = self._bottleneck(x, expert), chosen[:, None]
        else:
            y = self._by_token(
                x, jnp.where(kinds == TokenKind.PADDING, self.config.experts, expert)
            )
        return straight_through(y, chosen)

    def logits(self, x: Array) -> Array:
        """Of the router for x (b, m, d): (b, K) float32 by instance, else (b, m, K)."""
        route, first = self.config.route, self.router_in[...]
        if route == "token":
            return self._second(_project(x, first))
        instruction = self._instruction(x)
        if route == "instance":
            return self.instance_logits(instruction)
        d = x.shape[-1]
        return self._second(_project(x, first[:d]) + (instruction @ first[d:])[:, None])

    def instance_logits(self, instruction: Array) -> Array:
        """(b, e) -> (b, K) float32, or (layers, b, K) of a whole stack."""
        return self._second(instruction.astype(jnp.float32) @ self.router_in[...])

    def _second(self, first: Array) -> Array:
        """The rest of the router after its first product, (..., w) -> (..., K)."""
        hidden = jax.nn.gelu(first + self.router_in_bias[...][..., None, :], approximate=False)
        return hidden @ self.router_out[...] + self.router_out_bias[...][..., None, :]

    def _probabilities(self, logits: Array) -> Array:
        """Their softmax; with `gumbel` the soft sample, noiseless where no key was set."""
        if self.config.gumbel:
            if self.key is not None:
                logits = logits + jax.random.gumbel(self.key[...], logits.shape, logits.dtype)
            logits = logits / self.config.temperature
        return jax.nn.softmax(logits, axis=-1)

    def _instruction(self, x: Array) -> Array:
        if self.instruction is None:
            raise UserError(
                "A MoLE layer was called before its instruction was set: call "
                "omni_smola.experts.attach.set_instruction(model, instruction) with embeddings of "
                f"shape (examples, {self.instruction_width})."
            )
        instruction = self.instruction[...]
        if instruction.shape[0] != x.shape[0]:
            raise UserError(
                f"A MoLE layer was called with {x.shape[0]} examples, but set_instruction was "
                f"given {instruction.shape[0]} instructions: give it one row per example (in a "
                "beam search, one per hypothesis)."
            )
        return instruction

    def _bottleneck(self, x: Array, expert: Array | int) -> Array:
        """Blocks x (n, t, d) through the expert of each, (n,) int32 or one for all."""

        def pick(parameter: ExpertParam) -> Array:
            # Gathered before the cast, so that gradients of blocks are added up in float32.
            return parameter[...][expert].astype(x.dtype)

        hidden = nnx.relu(x @ pick(self.down) + pick(self.down_bias)[..., None, :])
        up = hidden @ pick(self.up) + pick(self.up_bias)[..., None, :]
        return up * pick(self.scale)[..., None, None]

    def _by_token(self, x: Array, expert: Array) -> Array:
        """x (b, m, d) through the expert of each token, (b, m) int32; K means none, and gives 0."""
        size = token_blocks.block_size(x.shape[1], self.config.experts)
        lay_out = functools.partial(token_blocks.lay_out, experts=self.config.experts, size=size)
        laid_out, slots, block_expert = jax.vmap(lay_out)(x, expert)
        y = self._bottleneck(laid_out.reshape(-1, *laid_out.shape[2:]), block_expert.reshape(-1))
        return jax.vmap(token_blocks.rows)(y.reshape(x.shape[0], -1, x.shape[2]), slots)


@jax.custom_vjp
def straight_through(y: Array, p: Array) -> Array:
    """y (b, m, d), to the bit, with the gradients of (1 + p - stop_gradient(p)) y.

    A rule of its own: multiplied in the forward pass, 1 + p - p would round, and even a factor of 1
    would keep a compiler from rounding as it does for the plain adapter (fused multiply and add).

    Args:
      p: (b, 1, 1) or (b, m, 1) float32; its gradient is a sum over what one choice decides.
    """
    del p
    return y


def _straight_through_backward(saved: tuple[Array, Array], of_out: Array) -> tuple[Array, Array]:
    y, p = saved
    of_p = of_out.astype(jnp.float32) * y.astype(jnp.float32)
    shared = tuple(axis for axis, size in enumerate(p.shape) if size == 1)
    return of_out, jnp.sum(of_p, axis=shared, keepdims=True)


straight_through.defvjp(lambda y, p: (y, (y, p)), _straight_through_backward)


def routes(model: nnx.Module) -> set[str]:
    """What the MoLE routers of a model read, some of `ROUTES`; empty without any."""
    found = [node.config for _, node in nnx.iter_modules(model) if isinstance(node, Mole)]
    return {config.route for config in found if config.experts > 1}


def router_probabilities(model: nnx.Module, instruction: Array) -> dict[str, Array]:
    """What the router of every MoLE layer makes of instructions, without noise, for pictures.

    Args:
      model: with MoLE routed by instance.
      instruction: (b, e).

    Returns:
      Path of the feed-forward -> (layers, b, K) float32 in a stack, else (b, K).

    Raises:
      UserError: the model has no MoLE, or one that is not routed by instance.
    """
    return {path: jax.nn.softmax(m.instance_logits(instruction)) for path, m in _routed(model)}


def balance_penalty(model: nnx.Module, instruction: Array) -> Array:
    """The load-balance penalty of the Switch Transformer (arXiv 2101.03961, equation 4).

    K sum_k f_k P_k, with f_k the share of the batch whose likeliest expert is k, and P_k the mean
    probability of k: 1 if all is even, K if one expert gets everything. f has no gradient.

    Takes and raises what `router_probabilities` does; returns () float32, the mean over all layers.
    """
    penalties = []
    for p in router_probabilities(model, instruction).values():
        experts = p.shape[-1]
        share = jnp.mean(jax.nn.one_hot(jnp.argmax(p, axis=-1), experts), axis=-2)
        penalties.append(experts * jnp.sum(share * jnp.mean(p, axis=-2), axis=-1).reshape(-1))
    return jnp.mean(jnp.concatenate(penalties))


def _project(x: Array, kernel: Array) -> Array:
    """x (b, m, d) times (d, w), in the dtype of x, summed in float32."""
    return jnp.matmul(x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)


def _routed(model: nnx.Module) -> Iterator[tuple[str, Mole]]:
    """(path of the feed-forward, MoLE) of all that are routed by instance."""
    if routes(model) != {"instance"}:
        raise UserError(
            "Routing by instance was asked of a model whose MoLE routers read: "
            f"{', '.join(sorted(routes(model))) or 'nothing, as it has none'}. Build it with "
            "--config.language.experts=4 and --config.language.route=instance."
        )
    for path, node in nnx.iter_modules(model):
        if isinstance(node, Mole) and node.config.experts > 1:
            names = [str(part) for part in path]
            yield "/".join(names[:-1] if names[-1:] == ["experts"] else names), node
