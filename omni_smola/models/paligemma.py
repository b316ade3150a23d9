"""PaliGemma 1 and 2 (arXiv 2407.07726, 2412.03555): a SigLIP tower before a Gemma, as a prefix-LM.

All patch tokens go through one linear projection and stand before the prompt, which the pipeline
frames as <bos>, prompt, newline. These see each other, whatever a layer's window; the answer is
causal. Visual tokens are not multiplied by sqrt(d_model) as embeddings are, and rotary positions
start at 1, as in transformers.
"""

import dataclasses

import jax
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.models import gemma, layers, t5, vit, vit_sizes
from omni_smola.models.decoder_only import Batch, LanguageConfig, LanguageModel
from omni_smola.models.gemma_layers import StackConfig
from omni_smola.models.pali import visual_kinds
from omni_smola.models.sentence_encoder import BertConfig

Array = jax.Array
# Gemma's pieces, 1,024 places, 128 shapes and 64 spare ones.
VOCABULARY = 257_216


@dataclasses.dataclass(frozen=True)
class PaliGemmaConfig:
    """A SigLIP tower and the language model behind it; see `prefix_lm`."""

    vision: vit.ViTConfig
    language: LanguageConfig


class PaliGemma(LanguageModel):
    """Image and prompt to the logits of an answer."""

    def __init__(
        self,
        config: PaliGemmaConfig,
        *,
        options: t5.Options | None = None,
        sentence: BertConfig | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(config.language, options=options, sentence=sentence, rngs=rngs)
        self.config = config
        common = dict(precision=self.options.precision, rngs=rngs)
        self.vision = vit.ViT(
            config.vision, remat=self.options.remat, unroll=self.options.unroll, **common
        )
        self.visual_projection = layers.Projection(
            config.vision.width,
            {"projection": config.language.d_model},
            use_bias=True,
            **common,
        )

    def visual_tokens(self, batch: Batch, instruction: Array) -> tuple[Array, Array]:
        """Of image (b, h, w, 3) uint8 and image_mask (b,) bool; padding where there is no image."""
        del instruction
        visual = self.vision(self.vision.normalize(batch["image"]))
        kinds = visual_kinds(batch["image_mask"], visual.shape[1])
        return self.visual_projection(visual, kinds)["projection"], kinds


def prefix_lm(language: LanguageConfig) -> LanguageConfig:
    """A Gemma with its vocabulary, as PaliGemma reads prompt and answer."""
    return dataclasses.replace(
        language,
        bos=gemma.BOS,
        bidirectional=True,
        first_position=1,
    )


def _named(language: str, pixels: int) -> PaliGemmaConfig:
    sizes = dataclasses.replace(gemma.gemma(language), vocabulary=VOCABULARY)
    vision = vit_sizes.vit("siglip_so400m14_224")
    return PaliGemmaConfig(dataclasses.replace(vision, image_size=pixels), prefix_lm(sizes))


_TINY = StackConfig(
    d_model=64,
    heads=4,
    key_heads=2,
    d_head=16,
    d_ff=128,
    sliding=(True, False, True),
    window=16,
    post_norms=True,
    softcap=50.0,
)
_LANGUAGES = {
    "paligemma_3b": "gemma_2b",
    "paligemma2_3b": "gemma2_2b",
    "paligemma2_10b": "gemma2_9b",
    "paligemma2_28b": "gemma2_27b",
}
PALIGEMMA = {
    "paligemma_tiny": PaliGemmaConfig(
        vit.ViTConfig(image_size=96, patch_size=12, width=48, depth=2, mlp=96, heads=4),
        prefix_lm(LanguageConfig(3072, _TINY, scaled=True, final_cap=30.0)),
    ),
    **{
        f"{name}_{pixels}": _named(language, pixels)
        for name, language in _LANGUAGES.items()
        for pixels in (224, 448, 896)
    },
    **{name: _named(language, 224) for name, language in _LANGUAGES.items()},
}


def paligemma(name: str) -> PaliGemmaConfig:
    """The sizes called `name`; raises UserError with the known names."""
    if name not in PALIGEMMA:
        raise UserError(
            f"There is no PaliGemma called {name!r}: choose one of {', '.join(PALIGEMMA)}."
        )
    return PALIGEMMA[name]
