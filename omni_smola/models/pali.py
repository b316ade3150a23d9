"""PaLI (arXiv 2209.06794, 2310.09199, 2305.18565): a ViT before a T5 encoder-decoder.

All patch tokens go through one linear projection, stand before the embedded prompt, and pass with
it through the encoder; the decoder cross-attends to all of it.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.experts import attach
from omni_smola.kinds import Kind
from omni_smola.models import layers, t5, vit
from omni_smola.models.sentence_encoder import BertConfig, SentenceEncoder, mean_embedding

Array = jax.Array
Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class PaliConfig:
    """A ViT and an encoder-decoder."""

    vision: vit.ViTConfig
    language: t5.T5Config


class Pali(nnx.Module):
    """Image and prompt to the logits of a target."""

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
        language = config.language
        options = options or t5.Options()
        self.config = config
        self.options = options
        precision = options.precision
        self.instruction_width = sentence.width if sentence else language.d_model
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
                {"projection": language.d_model},
                use_bias=True,
                precision=precision,
                rngs=rngs,
            )
        self.embedding = nnx.Param(
            jax.random.normal(
                rngs.params(), (language.vocabulary, language.d_model), precision.param_dtype
            )
        )
        self.encoder = t5.Encoder(language, options=options, rngs=rngs)
        self.decoder = t5.Decoder(language, options=options, rngs=rngs)
        self.head = layers.Projection(
            language.d_model,
            {"logits": language.vocabulary},
            causal=True,
            precision=precision,
            rngs=rngs,
        )

    def embed(self, tokens: Array) -> Array:
        """(b, m) int32 -> (b, m, d_model)."""
        return jnp.take(self.embedding[...], tokens, axis=0).astype(self.options.precision.dtype)

    def visual_tokens(self, batch: Batch, instruction: Array) -> tuple[Array, Array]:
        """The image as tokens of the encoder: (b, v, d_model) and their kinds (b, v) int32."""
        del instruction  # Mome chooses among its encoders by it
        visual = self.vision(vit.normalize(batch["image"]))
        kinds = visual_kinds(batch["image_mask"], visual.shape[1])
        return self.visual_projection(visual, kinds)["projection"], kinds

    def instruction(self, batch: Batch) -> Array:
        """The embedding (b, e) float32 of the instruction, on which instances are routed.

        A sentence encoder reads instruction (b, n) int32 and instruction_mask (b, n) bool.
        """
        if self.sentence is not None:
            return self.sentence(batch["instruction"], batch["instruction_mask"])
        return mean_embedding(self.embed(batch["prompt"]), batch["prompt_mask"])

    def encode(self, batch: Batch) -> tuple[Array, Array, Array]:
        """The multimodal encoder.

        Args:
          batch: image (b, h, w, 3) uint8; image_mask (b,) bool, False where an example has no
            image; prompt (b, p) int32; prompt_mask (b, p) bool; and, in training, key () of the
            experts' noise.

        Returns:
          encoded (b, v + p, d_model), kinds (b, v + p) int32, where a missing image is padding, and
          the instruction (b, e).
        """
        instruction = self.instruction(batch)
        attach.set_instruction(self, instruction, batch.get("key"))
        visual, kinds = self.visual_tokens(batch, instruction)
        text_kinds = jnp.where(batch["prompt_mask"], Kind.TEXT, Kind.PADDING).astype(jnp.int32)
        x = jnp.concatenate([visual, self.embed(batch["prompt"])], axis=1)
        kinds = jnp.concatenate([kinds, text_kinds], axis=1)
        return self.encoder(x, kinds), kinds, instruction

    def logits(self, hidden: Array) -> Array:
        """(b, t, d_model) -> (b, t, vocabulary) float32."""
        kinds = jnp.full(hidden.shape[:2], Kind.TEXT, jnp.int32)
        return self.head(hidden, kinds)["logits"].astype(jnp.float32)

    def __call__(self, batch: Batch) -> Array:
        """A batch of the pipeline -> logits (b, t, vocabulary) of its `target`, teacher-forced."""
        encoded, kinds, _ = self.encode(batch)
        # The decoder starts from padding (id 0) and reads the target shifted by one.
        inputs = jnp.pad(batch["target"], ((0, 0), (1, 0)))[:, :-1]
        return self.logits(self.decoder(self.embed(inputs), encoded, kinds))

    def init_cache(self, batch: Batch, max_length: int) -> dict[str, Array]:
        """Encodes the batch and makes room for `max_length` tokens; see `t5.Decoder`."""
        encoded, kinds, instruction = self.encode(batch)
        cache = self.decoder.init_cache(encoded, kinds, max_length)
        return cache | {"instruction": instruction[None]}

    def step(
        self, cache: dict[str, Array], tokens: Array, position: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The last token and its position -> logits (b, vocabulary) of the next, and the cache."""
        instruction = cache["instruction"]
        # A copy: this runs inside a loop, where a model made outside of it may not be changed.
        model = nnx.merge(*nnx.split(self))
        attach.set_instruction(model, instruction[0])
        rest = {name: value for name, value in cache.items() if name != "instruction"}
        hidden, rest = model.decoder.step(rest, model.embed(tokens[:, None]), position)
        return model.logits(hidden)[:, 0], rest | {"instruction": instruction}


def visual_kinds(image_mask: Array, tokens: int) -> Array:
    """(b,) bool -> (b, tokens) int32: visual, or padding where an example has no image."""
    kinds = jnp.where(image_mask[:, None], Kind.VISUAL, Kind.PADDING)
    return jnp.broadcast_to(kinds, (image_mask.shape[0], tokens)).astype(jnp.int32)
