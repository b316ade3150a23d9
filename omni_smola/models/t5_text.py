"""T5 as a whole: a prompt to the logits of a target, teacher-forced or one token after another.

What reads more than text (PaLI) overrides `inputs`: the tokens of the encoder and their kinds.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.experts import attach
from omni_smola.models import layers, t5
from omni_smola.models.sentence_encoder import mean_embedding
from omni_smola.token_kinds import TokenKind

Array = jax.Array
Batch = dict[str, Array]


class T5(nnx.Module):
    """Embedding, encoder, decoder and output head.

    Attributes:
      language: the sizes. instruction_width: channels of `instruction`.
      head: the projection to the vocabulary; None where the embedding table is the head.
    """

    def __init__(self, language: t5.T5Config, *, options: t5.Options | None = None, rngs: nnx.Rngs):
        options = options or t5.Options()
        self.language = language
        self.options = options
        self.instruction_width = language.d_model
        precision = options.precision
        self.embedding = nnx.Param(
            jax.random.normal(
                rngs.params(), (language.vocabulary, language.d_model), precision.param_dtype
            )
        )
        self.encoder = t5.Encoder(language, options=options, rngs=rngs)
        self.decoder = t5.Decoder(language, options=options, rngs=rngs)
        self.head = None if language.tied_head else self._make_head(rngs)

    def _make_head(self, rngs: nnx.Rngs) -> layers.Projection:
        return layers.Projection(
            self.language.d_model,
            {"logits": self.language.vocabulary},
            causal=True,
            precision=self.options.precision,
            rngs=rngs,
        )

    def embed(self, tokens: Array) -> Array:
        """(b, m) int32 -> (b, m, d_model)."""
        return jnp.take(self.embedding[...], tokens, axis=0).astype(self.options.precision.dtype)

    def instruction(self, batch: Batch) -> Array:
        """The embedding (b, e) float32 of the instruction, on which instances are routed."""
        return mean_embedding(self.embed(batch["prompt"]), batch["prompt_mask"])

    def inputs(self, batch: Batch, instruction: Array) -> tuple[Array, Array]:
        """What the encoder reads: tokens (b, s, d_model) and their kinds (b, s) int32."""
        del instruction  # PaLI's visual tokens may depend on it
        kinds = jnp.where(batch["prompt_mask"], TokenKind.TEXT, TokenKind.PADDING).astype(jnp.int32)
        return self.embed(batch["prompt"]), kinds

    def encode(self, batch: Batch) -> tuple[Array, Array, Array]:
        """The encoder.

        Args:
          batch: prompt (b, p) int32; prompt_mask (b, p) bool; in training, key () of the experts'
            noise; and what else `inputs` reads.

        Returns:
          encoded (b, s, d_model), kinds (b, s) int32, and the instruction (b, e).
        """
        instruction = self.instruction(batch)
        attach.set_instruction(self, instruction, batch.get("key"))
        x, kinds = self.inputs(batch, instruction)
        return self.encoder(x, kinds), kinds, instruction

    def logits(self, hidden: Array) -> Array:
        """(b, t, d_model) -> (b, t, vocabulary) float32."""
        if self.language.scaled_head:
            hidden = hidden * self.language.d_model**-0.5
        if self.head is None:
            return (hidden @ self.embedding[...].T.astype(hidden.dtype)).astype(jnp.float32)
        kinds = jnp.full(hidden.shape[:2], TokenKind.TEXT, jnp.int32)
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
