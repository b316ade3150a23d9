"""Decoder-only language models: prompt and answer are one sequence (Gemma, Llama, PaliGemma).

What stands before the answer is the prefix: the prompt in its frame, and an image where there is
one (`data.frames`). It is read at once, causally or, as a prefix-LM, in both directions; the answer
is causal. Every linear of the blocks says `causal="prefix"`: its input holds tokens of the answer,
and they are marked `TokenKind.TARGET`.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.experts import attach
from omni_smola.models import gemma_layers, layers, prompts, t5
from omni_smola.models.gemma_layers import Block, StackConfig
from omni_smola.models.sentence_encoder import BertConfig, SentenceEncoder, embed_instruction
from omni_smola.token_kinds import TokenKind

Array = jax.Array
Batch = dict[str, Array]
Cache = dict[str, Array]
SLOTS = "slots/"


@dataclasses.dataclass(frozen=True)
class LanguageConfig:
    """A decoder-only language model.

    Attributes:
      vocabulary: rows of the embedding table.
      stack: sizes of the layers.
      tied: the logits are products with the embedding table; there is no head.
      scaled: embeddings are multiplied by sqrt(d_model) (Gemma).
      final_cap: bound of the logits, cap * tanh(logits / cap) (Gemma 2).
      bos: token that a text begins with, None for none; frames put it before prompts.
      bidirectional: tokens of the prefix see each other, in sliding layers too (PaliGemma).
      first_position: rotary position of the first token.

    Raises:
      UserError: `bos` is outside of the vocabulary.
    """

    vocabulary: int
    stack: StackConfig
    tied: bool = True
    scaled: bool = False
    final_cap: float | None = None
    bos: int | None = None
    bidirectional: bool = False
    first_position: int = 0

    def __post_init__(self) -> None:
        if self.bos is not None and not 0 <= self.bos < self.vocabulary:
            raise UserError(
                f"The id {self.bos} of bos is not in the vocabulary of {self.vocabulary} tokens: "
                "choose a larger vocabulary, or the model's own."
            )

    @property
    def d_model(self) -> int:
        """Width of the stream."""
        return self.stack.d_model


class Tokens(NamedTuple):
    """What attention must know of tokens: rotary positions and kinds, (b, m) int32 each."""

    positions: Array
    kinds: Array


class Decoder(nnx.Module):
    """Embedded tokens to hidden states: all at once, or the prefix and then token by token.

    The cache is a dict of arrays with the layer on axis 0 and the batch on axis 1, for s tokens of
    the prefix and room for n of the answer: `prefix_key`, `prefix_value` (layers, b, s, key_heads,
    d_head); `key`, `value` (layers, b, n, key_heads, d_head); `kinds` (1, b, s) of the prefix; and
    for experts in its layers `slots/PATH`, see `attach.record_slots`.
    """

    def __init__(self, config: LanguageConfig, *, options: t5.Options, rngs: nnx.Rngs):
        self.config = config
        self.options = options
        self.stack = layers.Stack(
            lambda rngs: Block(config.stack, causal="prefix", options=options, rngs=rngs),
            config.stack.depth,
            rngs=rngs,
        )
        self.norm = gemma_layers.norm(config.stack, options)

    def __call__(self, x: Array, kinds: Array) -> Array:
        """x: (b, m, d), kinds: (b, m), those of the answer TARGET -> (b, m, d)."""
        tokens = self.tokens(kinds)
        biases = self.biases(tokens, tokens)

        def step(layer, x, kind):
            return layer(x, kinds, tokens.positions, _choose(biases, kind), kind), None

        x, _ = self._scan(step, x, gemma_layers.layer_kinds(self.config.stack))
        return self.norm(x)

    def init_cache(self, x: Array, kinds: Array, max_length: int) -> tuple[Array, Cache]:
        """Reads the prefix: its hidden states (b, s, d), and the cache behind it."""
        tokens = self.tokens(kinds)
        biases = self.biases(tokens, tokens)

        def step(layer, x, kind):
            attach.record_slots(layer)
            query, key, value = layer.project(x, kinds, tokens.positions, kind)
            x = layer.finish(x, query, key, value, _choose(biases, kind), kinds)
            return x, (key, value, attach.recorded_slots(layer))

        x, (key, value, slots) = self._scan(step, x, gemma_layers.layer_kinds(self.config.stack))
        room = jnp.zeros((*key.shape[:2], max_length, *key.shape[3:]), key.dtype)
        cache = {"prefix_key": key, "prefix_value": value, "key": room, "value": room}
        cache |= {"kinds": kinds[None]} | {SLOTS + path: kept for path, kept in slots.items()}
        return self.norm(x), cache

    def step(self, cache: Cache, x: Array, index: Array) -> tuple[Array, Cache]:
        """Token `index` () of the answer, x: (b, 1, d) -> its hidden state (b, 1, d), the cache."""
        queries, keys = self._decoding(cache, index)
        biases = self.biases(queries, keys)

        def step(layer, x, scanned):
            kind, prefix, key, value, slots = scanned
            attach.recall_slots(layer, slots)
            query, *new = layer.project(x, queries.kinds, queries.positions, kind)
            answer = [
                jax.lax.dynamic_update_slice_in_dim(old, one, index, 1)
                for old, one in zip((key, value), new, strict=True)
            ]
            seen = (jnp.concatenate(pair, axis=1) for pair in zip(prefix, answer, strict=True))
            x = layer.finish(x, query, *seen, _choose(biases, kind), queries.kinds)
            return x, answer

        slots = {k.removeprefix(SLOTS): v for k, v in cache.items() if k.startswith(SLOTS)}
        prefix = (cache["prefix_key"], cache["prefix_value"])
        kinds = gemma_layers.layer_kinds(self.config.stack)
        x, (key, value) = self.stack.scan(
            step,
            x,
            (kinds, prefix, cache["key"], cache["value"], slots),
            unroll=self.options.unroll,
        )
        return self.norm(x), {**cache, "key": key, "value": value}

    def tokens(self, kinds: Array) -> Tokens:
        """Kinds (b, m) with the positions that they imply: padding is not counted."""
        return Tokens(gemma_layers.token_positions(kinds) + self.config.first_position, kinds)

    def biases(self, queries: Tokens, keys: Tokens) -> tuple[Array, Array | None]:
        """(b, 1, m, n) float32 each: of layers that see everything, and of sliding ones, if any."""
        key_positions, key_kinds = (x[:, None, None, :] for x in keys)
        query_positions, query_kinds = (x[:, None, :, None] for x in queries)
        together = (key_kinds != TokenKind.TARGET) & (query_kinds != TokenKind.TARGET)
        together &= self.config.bidirectional
        seen = (key_positions <= query_positions) | together
        full = jnp.where(seen & (key_kinds != TokenKind.PADDING), 0.0, layers.NEGATIVE)
        if not any(self.config.stack.sliding):
            return full, None
        window = gemma_layers.window_bias(
            queries.positions, keys.positions, self.config.stack.window, causal=True
        )
        return full, full + jnp.where(together, 0.0, window)

    def _decoding(self, cache: Cache, index: Array) -> tuple[Tokens, Tokens]:
        """Token `index` of the answer, and all that the cache holds or has room for."""
        prefix = self.tokens(cache["kinds"][0])
        length = jnp.sum(prefix.kinds != TokenKind.PADDING, axis=1, keepdims=True, dtype=jnp.int32)
        start = length + self.config.first_position
        room = jnp.arange(cache["key"].shape[2])
        kinds = jnp.where(room <= index, TokenKind.TARGET, TokenKind.PADDING).astype(jnp.int32)
        answer = Tokens(start + room, jnp.broadcast_to(kinds, (len(start), len(room))))
        keys = Tokens(*(jnp.concatenate(pair, axis=1) for pair in zip(prefix, answer, strict=True)))
        return Tokens(start + index, jnp.full_like(start, TokenKind.TARGET)), keys

    def _scan(self, step: Any, x: Array, xs: Any) -> tuple[Array, Any]:
        return self.stack.scan(step, x, xs, remat=self.options.remat, unroll=self.options.unroll)


class LanguageModel(nnx.Module):
    """A prompt, and in subclasses an image, to the logits of an answer."""

    def __init__(
        self,
        config: LanguageConfig,
        *,
        options: t5.Options | None = None,
        sentence: BertConfig | None = None,
        rngs: nnx.Rngs,
    ):
        """sentence: of the encoder of instructions; None is `mean_embedding` of the prompt."""
        options = options or t5.Options()
        self.config = self.language = config
        self.options = options
        precision = options.precision
        self.instruction_width = sentence.width if sentence else config.d_model
        self.sentence = sentence and SentenceEncoder(sentence, precision=precision, rngs=rngs)
        self.embedding = nnx.Param(
            jax.random.normal(
                rngs.params(), (config.vocabulary, config.d_model), precision.param_dtype
            )
            * config.d_model**-0.5
        )
        self.decoder = Decoder(config, options=options, rngs=rngs)
        head = partial(
            layers.Projection,
            config.d_model,
            {"logits": config.vocabulary},
            causal=True,
            precision=precision,
            rngs=rngs,
        )
        self.head = None if config.tied else head()

    def embed(self, tokens: Array) -> Array:
        """(b, m) int32 -> (b, m, d_model)."""
        x = jnp.take(self.embedding[...], tokens, axis=0).astype(self.options.precision.dtype)
        return x * jnp.asarray(self.language.d_model**0.5, x.dtype) if self.language.scaled else x

    def instruction(self, batch: Batch) -> Array:
        """(b, e) float32, see `embed_instruction`."""
        return embed_instruction(self.sentence, batch, self.embed)

    def visual_tokens(self, batch: Batch, instruction: Array) -> tuple[Array, Array] | None:
        """The image as tokens, (b, v, d_model) and their kinds (b, v) int32; None without any."""
        del batch, instruction
        return None

    def prefix(self, batch: Batch) -> tuple[Array, Array, Array]:
        """What stands before the answer.

        Args:
          batch: prompt (b, p) int32 in its frame, right-padded; prompt_mask (b, p) bool; frame
            (b, 3) int32, see `prompts`; what `visual_tokens` reads; and, in training, key () of the
            experts' noise.

        Returns:
          (b, s, d_model), its kinds (b, s) int32, and the instruction (b, e).
        """
        instruction = self.instruction(batch)
        attach.set_instruction(self, instruction, batch.get("key"))
        kinds = jnp.where(batch["prompt_mask"], TokenKind.TEXT, TokenKind.PADDING).astype(jnp.int32)
        text = self.embed(batch["prompt"]), kinds
        visual = self.visual_tokens(batch, instruction)
        if visual is None:
            return *text, instruction
        return *prompts.with_image(text, visual, batch), instruction

    def answer(self, x: Array, kinds: Array, target: Array) -> Array:
        """Logits (b, t, vocabulary) of an answer after the prefix x: (b, s, d), kinds: (b, s).

        target: (b, t - 1, d), the answer embedded but for its last token, which nothing follows.
        """
        answer_kinds = jnp.full(target.shape[:2], TokenKind.TARGET, jnp.int32)
        hidden = self.decoder(
            jnp.concatenate([x, target], axis=1), jnp.concatenate([kinds, answer_kinds], axis=1)
        )
        first = last_token(hidden[:, : x.shape[1]], kinds)
        return self.logits(jnp.concatenate([first, hidden[:, x.shape[1] :]], axis=1))

    def logits(self, hidden: Array) -> Array:
        """(b, t, d_model) -> (b, t, vocabulary) float32."""
        if self.head is None:
            table = self.embedding[...].astype(hidden.dtype)
            logits = jnp.einsum("btd,vd->btv", hidden, table, preferred_element_type=jnp.float32)
        else:
            kinds = jnp.full(hidden.shape[:2], TokenKind.TARGET, jnp.int32)
            logits = self.head(hidden, kinds)["logits"]
        logits, cap = logits.astype(jnp.float32), self.language.final_cap
        return logits if cap is None else cap * jnp.tanh(logits / cap)

    def __call__(self, batch: Batch) -> Array:
        """A batch of the pipeline -> logits (b, t, vocabulary) of its `target`, teacher-forced."""
        x, kinds, _ = self.prefix(batch)
        return self.answer(x, kinds, self.embed(batch["target"][:, :-1]))

    def init_cache(self, batch: Batch, max_length: int) -> Cache:
        """Reads the prefix and makes room for `max_length` tokens; see `Decoder`.

        Beside the decoder's cache: `hidden` (1, b, d_model), of the prefix's last token, and
        `instruction` (1, b, e).
        """
        x, kinds, instruction = self.prefix(batch)
        hidden, cache = self.decoder.init_cache(x, kinds, max_length)
        last = last_token(hidden, kinds)[:, 0]
        return cache | {"hidden": last[None], "instruction": instruction[None]}

    def step(self, cache: Cache, tokens: Array, position: Array) -> tuple[Array, Cache]:
        """The last token and its position -> logits (b, vocabulary) of the next, and the cache.

        At position 0 there is no last token: what is given is not read, and the prefix answers.
        """
        # A copy: this runs inside a loop, where a model made outside of it may not be changed.
        model = nnx.merge(*nnx.split(self))
        attach.set_instruction(model, cache["instruction"][0])
        # What position 0 writes, position 1 overwrites.
        index = jnp.maximum(position - 1, 0)
        hidden, cache = model.decoder.step(cache, model.embed(tokens[:, None]), index)
        hidden = jnp.where(position == 0, cache["hidden"][0][:, None], hidden)
        return model.logits(hidden)[:, 0], cache


def last_token(x: Array, kinds: Array) -> Array:
    """(b, s, d) -> (b, 1, d), of the last token that is not padding."""
    index = jnp.max(jnp.where(kinds != TokenKind.PADDING, jnp.arange(kinds.shape[1]), 0), axis=1)
    return jnp.take_along_axis(x, index[:, None, None], axis=1)


def _choose(biases: tuple[Array, Array | None], kind: gemma_layers.LayerKind) -> Array:
    full, sliding = biases
    return full if sliding is None else jnp.where(kind["sliding"], sliding, full)
