"""T5Gemma 2 (arXiv 2512.14856): an encoder-decoder made of Gemma 3, with images in its encoder.

A SigLIP tower's patch tokens are averaged over squares to `visual_tokens`, normed, projected, and
put into the encoder's sequence. The pipeline frames prompts as the original's processor does
(`data.frames`): <bos>, two newlines, <start_of_image>, the image, <end_of_image>, two newlines, and
the prompt; or <bos> and the prompt of an example without an image. Encoder, decoder and head share
the embeddings, or the head has a matrix of its own.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts import attach
from omni_smola.models import layers, prompts, t5, vit
from omni_smola.models.gemma_layers import StackConfig
from omni_smola.models.pali import visual_kinds
from omni_smola.models.sentence_encoder import BertConfig, SentenceEncoder, embed_instruction
from omni_smola.models.t5gemma2_stacks import Decoder, Encoder
from omni_smola.models.vit import ViTConfig
from omni_smola.token_kinds import TokenKind

Array = jax.Array
Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class T5Gemma2Config:
    """A SigLIP tower, an encoder and a decoder of one width.

    Attributes:
      visual_tokens: of an image after pooling, a square number.
      softcap: bound of the output logits, or None.
      tied: the logits are products with the embedding table; there is no head.
      bos, boi, eoi: ids of <bos>, which the decoder starts from, and of the tokens around an image.

    Raises:
      UserError: pooling cannot make `visual_tokens` of the tower's patches, the widths differ, or
        an id is outside of the vocabulary.
    """

    vision: ViTConfig
    encoder: StackConfig
    decoder: StackConfig
    vocabulary: int
    visual_tokens: int = 256
    softcap: float | None = None
    bos: int = 2
    boi: int = 255_999
    eoi: int = 256_000
    tied: bool = True

    def __post_init__(self):
        side, pooled = self.vision.side, self.pooled_side
        if pooled < 1 or pooled**2 != self.visual_tokens or side % pooled:
            raise UserError(
                f"An image of {self.vision.image_size} pixels is {side} x {side} patches of "
                f"{self.vision.patch_size}, which cannot be averaged to {self.visual_tokens} tokens"
                f": choose a resolution that is a multiple of {self.vision.patch_size * pooled}."
            )
        if self.encoder.d_model != self.decoder.d_model:
            raise UserError(
                f"The encoder is {self.encoder.d_model} wide and the decoder "
                f"{self.decoder.d_model}: T5Gemma 2 projects the encoder's output with the "
                "decoder's own weights, so that both have one width."
            )
        ids = (self.bos, self.boi, self.eoi)
        if not all(0 <= token < self.vocabulary for token in ids):
            raise UserError(
                f"The ids {ids} of <bos>, <start_of_image> and <end_of_image> must be below the "
                f"vocabulary's size {self.vocabulary}."
            )

    @property
    def pooled_side(self) -> int:
        """Tokens of a pooled image from left to right."""
        return math.isqrt(max(self.visual_tokens, 0))


class T5Gemma2(nnx.Module):
    """Image and prompt to the logits of a target."""

    def __init__(
        self,
        config: T5Gemma2Config,
        *,
        options: t5.Options | None = None,
        sentence: BertConfig | None = None,
        rngs: nnx.Rngs,
    ):
        """sentence: of the encoder of instructions; None is `mean_embedding` of the prompt."""
        options = options or t5.Options()
        d_model, precision = config.encoder.d_model, options.precision
        self.config = config
        self.options = options
        self.instruction_width = sentence.width if sentence else d_model
        self.sentence = sentence and SentenceEncoder(sentence, precision=precision, rngs=rngs)
        common = dict(precision=precision, rngs=rngs)
        self.vision = vit.ViT(config.vision, remat=options.remat, unroll=options.unroll, **common)
        self.visual_norm = layers.RMSNorm(
            config.vision.width, precision=precision, epsilon=config.vision.epsilon, offset=1.0
        )
        self.visual_projection = layers.Projection(
            config.vision.width, {"projection": d_model}, **common
        )
        # Embeddings leave `embed` multiplied by sqrt(d_model), but for <end_of_image>'s own.
        self.embedding = nnx.Param(
            jax.random.normal(rngs.params(), (config.vocabulary, d_model), precision.param_dtype)
            * d_model**-0.5
        )
        self.eoi_embedding = nnx.Param(
            jax.random.normal(rngs.params(), (d_model,), precision.param_dtype)
        )
        self.encoder = Encoder(config.encoder, options=options, rngs=rngs)
        self.decoder = Decoder(config.decoder, options=options, rngs=rngs)
        self.head = None if config.tied else self._make_head(rngs)

    def _make_head(self, rngs: nnx.Rngs) -> layers.Projection:
        return layers.Projection(
            self.config.decoder.d_model,
            {"logits": self.config.vocabulary},
            causal=True,
            precision=self.options.precision,
            rngs=rngs,
        )

    def embed(self, tokens: Array) -> Array:
        """(b, m) int32 -> (b, m, d_model); the factor sqrt(d_model) is rounded to the dtype."""
        dtype = self.options.precision.dtype
        x = jnp.take(self.embedding[...], tokens, axis=0).astype(dtype)
        x = x * jnp.asarray(self.config.encoder.d_model**0.5, dtype)
        is_eoi = (tokens == self.config.eoi)[..., None]
        return jnp.where(is_eoi, self.eoi_embedding[...].astype(dtype), x)

    def visual_tokens(self, image: Array) -> Array:
        """(b, h, w, 3) uint8 -> (b, visual_tokens, d_model)."""
        x = self.vision(self.vision.normalize(image))
        b, side, width = x.shape[0], self.config.pooled_side, x.shape[-1]
        size = math.isqrt(x.shape[1]) // side
        x = x.reshape(b, side, size, side, size, width).mean(axis=(2, 4))
        x = self.visual_norm(x.reshape(b, side * side, width))
        kinds = jnp.full(x.shape[:2], TokenKind.VISUAL, jnp.int32)
        return self.visual_projection(x, kinds)["projection"]

    def instruction(self, batch: Batch) -> Array:
        """(b, e) float32, see `embed_instruction`."""
        return embed_instruction(self.sentence, batch, self.embed)

    def sequence(self, batch: Batch) -> tuple[Array, Array]:
        """What the encoder reads: the prompt in its frame, and the image in its place.

        Returns:
          (b, visual_tokens + p, d_model) and the kinds (b, visual_tokens + p) int32. The image is
          padding where an example has none.
        """
        kinds = jnp.where(batch["prompt_mask"], TokenKind.TEXT, TokenKind.PADDING).astype(jnp.int32)
        image = self.visual_tokens(batch["image"])
        image_kinds = visual_kinds(batch["image_mask"], image.shape[1])
        return prompts.with_image((self.embed(batch["prompt"]), kinds), (image, image_kinds), batch)

    def encode(self, batch: Batch) -> tuple[Array, Array, Array]:
        """The multimodal encoder.

        Args:
          batch: image (b, h, w, 3) uint8; image_mask (b,) bool, False where an example has no
            image; prompt (b, p) int32 in its frame; prompt_mask (b, p) bool; frame (b, 3) int32,
            see `prompts`; and, in training, key () of the experts' noise.

        Returns:
          encoded (b, s, d_model), kinds (b, s) int32 as `sequence`, and the instruction (b, e).
        """
        instruction = self.instruction(batch)
        attach.set_instruction(self, instruction, batch.get("key"))
        x, kinds = self.sequence(batch)
        return self.encoder(x, kinds), kinds, instruction

    def logits(self, hidden: Array) -> Array:
        """(b, t, d_model) -> (b, t, vocabulary) float32."""
        if self.head is None:
            table = self.embedding[...].astype(hidden.dtype)
            y = jnp.einsum("btd,vd->btv", hidden, table, preferred_element_type=jnp.float32)
        else:
            kinds = jnp.full(hidden.shape[:2], TokenKind.TEXT, jnp.int32)
            y = self.head(hidden, kinds)["logits"].astype(jnp.float32)
        cap = self.config.softcap
        return y if cap is None else cap * jnp.tanh(y / cap)

    def __call__(self, batch: Batch) -> Array:
        """A batch of the pipeline -> logits (b, t, vocabulary) of its `target`, teacher-forced."""
        encoded, kinds, _ = self.encode(batch)
        start = ((0, 0), (1, 0))
        inputs = jnp.pad(batch["target"], start, constant_values=self.config.bos)[:, :-1]
        return self.logits(self.decoder(self.embed(inputs), encoded, kinds))

    def init_cache(self, batch: Batch, max_length: int) -> dict[str, Array]:
        """Encodes the batch and makes room for `max_length` tokens; see `Decoder`."""
        encoded, kinds, instruction = self.encode(batch)
        cache = self.decoder.init_cache(encoded, kinds, max_length)
        return cache | {"instruction": instruction[None]}

    def step(
        self, cache: dict[str, Array], tokens: Array, position: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The last token and its position -> logits (b, vocabulary) of the next, and the cache.

        At position 0 the tokens (b,) are not read: the decoder starts from <bos>.
        """
        instruction = cache["instruction"]
        # A copy: this runs inside a loop, where a model made outside of it may not be changed.
        model = nnx.merge(*nnx.split(self))
        attach.set_instruction(model, instruction[0])
        rest = {name: value for name, value in cache.items() if name != "instruction"}
        tokens = jnp.where(position == 0, self.config.bos, tokens)
        hidden, rest = model.decoder.step(rest, model.embed(tokens[:, None]), position)
        return model.logits(hidden)[:, 0], rest | {"instruction": instruction}


def _stack(
    depth: int, d_model: int, d_ff: int, heads: int, key_heads: int, window: int
) -> StackConfig:
    """Gemma 3's stack: five sliding layers to a full one, whose positions are divided by 8."""
    return StackConfig(
        d_model=d_model,
        heads=heads,
        key_heads=key_heads,
        d_head=256,
        d_ff=d_ff,
        sliding=tuple(layer % 6 != 5 for layer in range(depth)),
        window=window,
        base=1_000_000.0,
        factor=8.0,
        qk_norm=True,
        post_norms=True,
    )


def _named(*sizes: int) -> T5Gemma2Config:
    # SigLIP So400m/14 at 896 pixels.
    vision = ViTConfig(image_size=896, patch_size=14, width=1152, depth=27, mlp=4304, heads=16)
    return T5Gemma2Config(vision, _stack(*sizes), _stack(*sizes), vocabulary=262_144)


_TINY = StackConfig(
    d_model=64,
    heads=4,
    key_heads=2,
    d_head=16,
    d_ff=128,
    sliding=(True, True, False),
    window=16,
    base=1_000_000.0,
    factor=8.0,
    qk_norm=True,
    post_norms=True,
)

# 270M-270M is as its published config.json says. Of 1B-1B and 4B-4B no config.json was at hand:
# widths, depths, heads and windows are those of Gemma 3 1B and 4B, and the numbers of parameters
# agree with the published 1.7B and 7B; vocabulary, positions and tower are taken from 270M-270M.
NAMED = {
    "t5gemma2_tiny": T5Gemma2Config(
        ViTConfig(image_size=96, patch_size=12, width=64, depth=2, mlp=128, heads=4),
        _TINY,
        _TINY,
        vocabulary=3072,
        visual_tokens=16,
        boi=3070,
        eoi=3071,
    ),
    "t5gemma2_270m": _named(18, 640, 2048, 4, 1, 512),
    "t5gemma2_1b": _named(26, 1152, 6912, 4, 1, 512),
    "t5gemma2_4b": _named(34, 2560, 10240, 8, 4, 1024),
}
