"""MoME (arXiv 2407.12709): a frozen language model that sees through several frozen encoders.

A single ViT and its projection give way to a mixture of vision experts (`experts.move`), which
reads all encoders' maps and the instruction. The language model behind it is PaLI's
encoder-decoder, or a decoder such as the paper's Vicuna.
"""

import dataclasses
from typing import Any

import jax
from flax import nnx

from omni_smola.experts.move import Move, MoveConfig, shares
from omni_smola.models import vision_encoders
from omni_smola.models.decoder_only import LanguageConfig, LanguageModel
from omni_smola.models.pali import Batch, Pali, PaliConfig, visual_kinds

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class MomeConfig:
    """An encoder-decoder, whose own ViT is not built, and the mixture that stands for it."""

    pali: PaliConfig
    move: MoveConfig


class Seeing:
    """What the mixture of vision experts adds to a language model: encoders and `experts`."""

    def _see(self, config: MoveConfig, d_model: int, rngs: nnx.Rngs) -> None:
        run = self.options
        how = {"precision": run.precision, "remat": run.remat, "unroll": run.unroll, "rngs": rngs}
        self.encoders = nnx.Dict(
            {name: vision_encoders.vision_encoder(name, **how) for name in config.encoders}
        )
        widths = {name: encoder.width for name, encoder in self.encoders.items()}
        self.experts = Move(config, widths, d_model, self.instruction_width, rngs=rngs)

    def maps(self, batch: Batch) -> dict:
        """What every encoder sees: name -> VisionMap."""
        return {name: encoder(batch) for name, encoder in self.encoders.items()}

    def visual_tokens(self, batch: Batch, instruction: Array) -> tuple[Array, Array]:
        """The mixture of all encoders: (b, v, d_model) and its kinds (b, v) int32."""
        visual = self.experts(self.maps(batch), instruction, batch.get("key"))
        return visual, visual_kinds(batch["image_mask"], visual.shape[1])

    def vision_shares(self, batch: Batch) -> Array:
        """(b, n) float32: each vision expert's share of the mixture (see `move.shares`)."""
        features = self.experts.features(self.maps(batch), self.instruction(batch))
        return shares(features)


class Mome(Seeing, Pali):
    """Images through several encoders, and a prompt, to the logits of a target."""

    def __init__(self, config: MomeConfig, *, rngs: nnx.Rngs, **how: Any):
        """how: `options` and `sentence`, as in `Pali`."""
        super().__init__(config.pali, vision=False, rngs=rngs, **how)
        self._see(config.move, config.pali.language.d_model, rngs)


class MomeDecoder(Seeing, LanguageModel):
    """The same before a decoder-only language model: the paper's own composition."""

    def __init__(self, config: LanguageConfig, move: MoveConfig, *, rngs: nnx.Rngs, **how: Any):
        """how: `options` and `sentence`, as in `LanguageModel`."""
        super().__init__(config, rngs=rngs, **how)
        self._see(move, config.d_model, rngs)
