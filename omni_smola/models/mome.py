"""MoME (arXiv 2407.12709): a frozen language model that sees through several frozen encoders.

The language model is PaLI's encoder-decoder; its single ViT and visual projection give way to a
mixture of vision experts (`experts.move`), which reads all encoders' maps and the instruction.
"""

import dataclasses

import jax
from flax import nnx

from omni_smola.experts.move import Move, MoveConfig, shares
from omni_smola.models import vision_encoders
from omni_smola.models.pali import Batch, Pali, PaliConfig, visual_kinds
from omni_smola.models.sentence_encoder import BertConfig
from omni_smola.models.t5 import Options

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class MomeConfig:
    """An encoder-decoder, whose own ViT is not built, and the mixture that stands for it."""

    pali: PaliConfig
    move: MoveConfig


class Mome(Pali):
    """Images through several encoders, and a prompt, to the logits of a target."""

    def __init__(
        self,
        config: MomeConfig,
        *,
        options: Options | None = None,
        sentence: BertConfig | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(config.pali, options=options, vision=False, sentence=sentence, rngs=rngs)
        precision = self.options.precision
        self.encoders = nnx.Dict(
            {
                name: vision_encoders.vision_encoder(name, precision=precision, rngs=rngs)
                for name in config.move.encoders
            }
        )
        width = config.pali.language.d_model
        self.experts = Move(
            config.move,
            {name: encoder.width for name, encoder in self.encoders.items()},
            width,
            self.instruction_width,
            rngs=rngs,
        )

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
