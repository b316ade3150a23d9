"""PaLI (arXiv 2209.06794, 2310.09199, 2305.18565): a ViT before a T5 encoder-decoder.

All patch tokens go through one linear projection, stand before the embedded prompt, and pass with
it through the encoder; the decoder cross-attends to all of it.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.models import layers, t5, vit
from omni_smola.models.sentence_encoder import BertConfig, SentenceEncoder, embed_instruction
from omni_smola.models.t5_text import T5, Batch
from omni_smola.token_kinds import TokenKind

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class PaliConfig:
    """A ViT and an encoder-decoder."""

    vision: vit.ViTConfig
    language: t5.T5Config


class Pali(T5):
    """Image and prompt to the logits of a target: a T5 whose encoder also reads an image."""

    def __init__(
        self,
        config: PaliConfig,
        *,
        options: t5.Options | None = None,
        vision: bool = True,
        sentence: BertConfig | None = None,
        rngs: nnx.Rngs,
    ):
        """A model with fresh weights.

        Args:
          vision: whether to build the ViT and its projection; Mome has others in their place.
          sentence: of the encoder that embeds instructions; None is `mean_embedding` of prompts.
        """
        options = options or t5.Options()
        precision = options.precision
        self.config = config
        self.sentence = sentence and SentenceEncoder(sentence, precision=precision, rngs=rngs)
        if vision:
            self.vision = vit.ViT(
                config.vision,
                precision=precision,
                remat=options.remat,
                unroll=options.unroll,
                rngs=rngs,
            )
            self.visual_projection = layers.Projection(
                config.vision.width,
                {"projection": config.language.d_model},
                use_bias=True,
                precision=precision,
                rngs=rngs,
            )
        super().__init__(config.language, options=options, rngs=rngs)
        if sentence is not None:
            self.instruction_width = sentence.width

    def visual_tokens(self, batch: Batch, instruction: Array) -> tuple[Array, Array]:
        """The image as tokens of the encoder: (b, v, d_model) and their kinds (b, v) int32."""
        del instruction  # Mome chooses among its encoders by it
        visual = self.vision(self.vision.normalize(batch["image"]))
        kinds = visual_kinds(batch["image_mask"], visual.shape[1])
        return self.visual_projection(visual, kinds)["projection"], kinds

    def instruction(self, batch: Batch) -> Array:
        """(b, e) float32, see `embed_instruction`."""
        return embed_instruction(self.sentence, batch, self.embed)

    def inputs(self, batch: Batch, instruction: Array) -> tuple[Array, Array]:
        """The image's tokens and the prompt's: (b, v + p, d_model), and kinds (b, v + p) int32.

        Args:
          batch: image (b, h, w, 3) uint8; image_mask (b,) bool, False where an example has no
            image, which is padding then; prompt (b, p) int32; prompt_mask (b, p) bool.
          instruction: (b, e).
        """
        visual, visual_kinds = self.visual_tokens(batch, instruction)
        text, kinds = super().inputs(batch, instruction)
        return (
            jnp.concatenate([visual, text], axis=1),
            jnp.concatenate([visual_kinds, kinds], axis=1),
        )


def visual_kinds(image_mask: Array, tokens: int) -> Array:
    """(b,) bool -> (b, tokens) int32: visual, or padding where an example has no image."""
    kinds = jnp.where(image_mask[:, None], TokenKind.VISUAL, TokenKind.PADDING)
    return jnp.broadcast_to(kinds, (image_mask.shape[0], tokens)).astype(jnp.int32)
