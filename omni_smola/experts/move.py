"""MoVE, MoME's mixture of vision experts (arXiv 2407.12709): many encoders, one run of tokens.

    F = sum_i G(I)_i * proj_i(transform_i(f_i))       G(I) = softmax(W2 gelu(W1 I + b1) + b2)

f_i is encoder i's map, I the sentence embedding of the instruction. `addition` is the same sum with
every gate at one, without a router.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts.adt import TRANSFORMS, AdtConfig, Linear, Norm, check_width
from omni_smola.experts.vision_map import VisionMap

Array = jax.Array
AGGREGATES = ("router", "addition")


@dataclasses.dataclass(frozen=True)
class MoveConfig:
    """Which encoders, and how their maps are brought together.

    Attributes:
      encoders: their names, in the order of the gates.
      transform: adt, average or cross_attention.
      aggregate: router or addition.
      cls: the encoder whose CLS is put before the tokens, projected but un-gated; "" is none.
      plain: encoders with LayerNorm + Linear instead of a transform and a Linear, as the authors do
        for CLIP; their maps have side * side tokens as they are.
      adt: sizes of the transforms; `side` counts for all of them.
    """

    encoders: tuple[str, ...]
    transform: str = "adt"
    aggregate: str = "router"
    cls: str = ""
    plain: tuple[str, ...] = ()
    adt: AdtConfig = dataclasses.field(default_factory=AdtConfig)

    def __post_init__(self) -> None:
        if not self.encoders or len(set(self.encoders)) < len(self.encoders):
            raise UserError(
                f"vision.encoders is {self.encoders}, but MoVE needs one encoder or more, "
                "each named once: set it to names such as ('clip', 'dino', 'pix2struct')."
            )
        for name, allowed in (("transform", tuple(TRANSFORMS)), ("aggregate", AGGREGATES)):
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"vision.{name} is {getattr(self, name)!r}, but it is one of "
                    f"{', '.join(allowed)}: set --config.vision.{name}={allowed[0]}."
                )
        for name, chosen in (("cls", (self.cls,) if self.cls else ()), ("plain", self.plain)):
            for encoder in chosen:
                if encoder not in self.encoders:
                    raise UserError(
                        f"vision.{name} names {encoder!r}, but the encoders are "
                        f"{', '.join(self.encoders)}: name one of them, or leave it empty."
                    )


class _Expert(nnx.Module):
    """One encoder's transformation and projection."""

    def __init__(self, config: MoveConfig, name: str, width: int, d_model: int, *, rngs: nnx.Rngs):
        plain = name in config.plain
        self.width = width
        self.norm = Norm(width) if plain else None
        self.transform = (
            None if plain else TRANSFORMS[config.transform](config.adt, width, rngs=rngs)
        )
        init = nnx.initializers.lecun_normal()
        self.projection = Linear(width, d_model, init=init, rngs=rngs)

    def __call__(self, vision_map: VisionMap, key: Array | None) -> Array:
        """tokens (b, n, c) -> (b, L, d_model)."""
        if self.transform is None:
            check_width(vision_map, self.width)
            return self.project(vision_map.visible())
        return self.project(self.transform(vision_map, key))

    def project(self, x: Array) -> Array:
        """(..., c) -> (..., d_model)."""
        return self.projection(x if self.norm is None else self.norm(x))


class _Router(nnx.Module):
    """softmax(W2 gelu(W1 I + b1) + b2), in float32 throughout: it is small and decides much."""

    def __init__(self, width: int, experts: int, *, rngs: nnx.Rngs):
        init = nnx.initializers.lecun_normal()
        self.hidden = Linear(width, width, init=init, rngs=rngs)
        self.logits = Linear(width, experts, init=init, rngs=rngs)

    def __call__(self, instruction: Array) -> Array:
        """(b, e) -> (b, experts) float32."""
        hidden = nnx.gelu(self.hidden(instruction.astype(jnp.float32)), approximate=False)
        return jax.nn.softmax(self.logits(hidden), axis=-1)


class Move(nnx.Module):
    """The mixture; all parameters are trained, float32.

    Args:
      config: see MoveConfig.
      widths: width of every encoder's tokens.
      d_model: width of the language model.
      instruction_width: e, of the sentence embedding; W1 is e x e.

    Raises:
      UserError: an encoder has no width, or the heads do not divide it.
    """

    def __init__(
        self,
        config: MoveConfig,
        widths: Mapping[str, int],
        d_model: int,
        instruction_width: int,
        *,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.instruction_width = instruction_width
        _check_names("widths", widths, config)
        self.experts = nnx.Dict(
            {
                name: _Expert(config, name, widths[name], d_model, rngs=rngs)
                for name in config.encoders
            }
        )
        experts = len(config.encoders)
        routed = config.aggregate == "router" and experts > 1
        self.router = _Router(instruction_width, experts, rngs=rngs) if routed else None

    def __call__(
        self, maps: Mapping[str, VisionMap], instruction: Array, key: Array | None = None
    ) -> Array:
        """The visual tokens for the language model.

        Args:
          maps: every encoder's map, tokens (b, n, width) with sizes of their own.
          instruction: (b, e), the sentence embedding.
          key: for dropout; None is none.

        Returns:
          (b, L, d_model) in the maps' dtype, L = side * side; (b, L + 1, d_model) with a CLS.

        Raises:
          UserError: a map is missing, of another width, without the CLS that is asked for, or, for
            a plain encoder, not of side * side tokens; the instruction is not of width e.
        """
        fused = jnp.sum(self.features(maps, instruction, key), axis=1)
        name = self.config.cls
        if not name:
            return fused
        cls = maps[name].cls
        if cls is None:
            raise UserError(
                f"vision.cls is {name!r}, but the map of {name} has no CLS: name an encoder "
                "that has one, or set --config.vision.cls= to nothing."
            )
        cls = self.experts[name].project(cls[:, None])
        return jnp.concatenate([cls.astype(fused.dtype), fused], axis=1)

    def gates(self, instruction: Array) -> Array:
        """G(I): instruction (b, e) -> (b, encoders) float32; ones for addition or one encoder."""
        if self.router is None:
            return jnp.ones((instruction.shape[0], len(self.config.encoders)), jnp.float32)
        if instruction.shape[-1] != self.instruction_width:
            raise UserError(
                f"The instruction's embedding is {instruction.shape[-1]} wide, but MoVE's router "
                f"was built for {self.instruction_width}: give `instruction_width` the width of "
                "the sentence encoder."
            )
        return self.router(instruction)

    def features(
        self, maps: Mapping[str, VisionMap], instruction: Array, key: Array | None = None
    ) -> Array:
        """The weighted features before their sum, (b, encoders, L, d_model); see `__call__`."""
        _check_names("maps", maps, self.config)
        names, tokens = self.config.encoders, self.config.adt.side**2
        for name in self.config.plain:
            if maps[name].tokens.shape[1] != tokens:
                raise UserError(
                    f"The map of {name} has {maps[name].tokens.shape[1]} tokens, but a plain "
                    f"encoder's has vision.side squared, {tokens}: take {name} out of "
                    "vision.plain, or change its resolution or the side."
                )
        keys = [None] * len(names) if key is None else jax.random.split(key, len(names))
        features = [
            self.experts[name](maps[name], expert_key)
            for name, expert_key in zip(names, keys, strict=True)
        ]
        features = jnp.stack(features, axis=1)
        return features * self.gates(instruction)[:, :, None, None].astype(features.dtype)


def shares(features: Array) -> Array:
    """The paper's routing shares: mean magnitude of the weighted features, over the experts' sum.

    Args:
      features: (b, encoders, L, d_model), of `Move.features`.

    Returns:
      (b, encoders) float32 that sums to one, zeros where all features are.
    """
    magnitude = jnp.mean(jnp.abs(features.astype(jnp.float32)), axis=(2, 3))
    total = jnp.sum(magnitude, axis=1, keepdims=True)
    return jnp.where(total > 0, magnitude / jnp.where(total > 0, total, 1), 0)


def _check_names(what: str, given: Mapping[str, object], config: MoveConfig) -> None:
    missing = [name for name in config.encoders if name not in given]
    if missing:
        raise UserError(
            f"MoVE's {what} lack {', '.join(missing)}, but vision.encoders names "
            f"{', '.join(config.encoders)}: give every one, or leave it out of the encoders."
        )
