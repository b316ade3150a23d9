"""T5 1.1, mT5 and UL2 against transformers: logits, decoding and beams, on folders that it wrote.

The weights are random, in float32, and all sizes differ; heads * d_kv is not d_model.
"""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from flax import nnx
from safetensors.numpy import load_file, save_file

from omni_smola.evaluation import decode
from omni_smola.models import t5 as layers
from omni_smola.models.t5_text import T5
from omni_smola.pretrained import load, t5
from omni_smola.training import state as states

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = dict(
    vocab_size=53, d_model=24, d_kv=10, num_heads=3, d_ff=40, num_layers=3, num_decoder_layers=2
)
# (fields beside the sizes, whether the head gets a matrix of its own). tie_word_embeddings False
# only switches off the scaling: transformers 5 ties every head, until it is replaced.
VARIANTS = {
    "t5 1.1": (dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False), True),
    "tied": (dict(feed_forward_proj="gated-gelu"), False),
    "tied, not scaled": (dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False), False),
    "scaled, not tied": (dict(feed_forward_proj="gated-gelu"), True),
    "mt5": (dict(model="MT5", vocab_size=61), True),
    "mt5, tied": (dict(model="MT5"), False),
    "ul2": (
        dict(
            feed_forward_proj="gated-silu",
            tie_word_embeddings=False,
            layer_norm_epsilon=1e-3,
            relative_attention_num_buckets=12,
            relative_attention_max_distance=40,
        ),
        True,
    ),
}


def write(folder, name, seed=0, eos=1.0):
    """A folder of random weights; `eos` multiplies the head's row of the EOS."""
    fields, own_head = VARIANTS[name]
    fields = SIZES | fields
    model = fields.pop("model", "T5")
    # What hub folders say and the classes' defaults do not.
    config = getattr(transformers, f"{model}Config")(decoder_start_token_id=0, **fields)
    oracle = getattr(transformers, f"{model}ForConditionalGeneration")(config)
    if own_head:
        oracle.lm_head.weight = torch.nn.Parameter(torch.empty_like(oracle.lm_head.weight))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for path, weight in oracle.named_parameters():
            weight.normal_(generator=generator)
            if "layer_norm" in path:
                weight.mul_(0.3).add_(1.0)
            elif "relative" not in path and "shared" not in path:
                weight.mul_(weight.shape[-1] ** -0.5)
        oracle.lm_head.weight[1] *= eos
    oracle.save_pretrained(folder)
    return folder


def original(folder):
    """transformers' own reading of a folder."""
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()


@functools.cache
def empty(config):
    return nnx.split(nnx.eval_shape(lambda: T5(config, rngs=nnx.Rngs(0))))


def filled(config, folder, family):
    graphdef, abstract = empty(config)
    wanted = states.paths(nnx.to_pure_dict(abstract))
    state = jax.tree.map(lambda leaf: leaf, abstract)
    nnx.replace_by_pure_dict(state, states.nest(load.read(folder, family, wanted)))
    return nnx.merge(graphdef, state)


def ours(folder):
    config = t5.read_config(folder)
    return filled(config, folder, t5.family(config))


def make_batch(vocabulary, rows=3, prompt=150, target=45, seed=0):
    """Prompts of three lengths, padded; longer than the farthest bucket."""
    rng = np.random.default_rng(seed)
    mask = np.arange(prompt) < np.array([prompt, prompt - prompt // 3, 2])[:rows, None]
    return {
        "prompt": (rng.integers(2, vocabulary, (rows, prompt)) * mask).astype(np.int32),
        "prompt_mask": mask,
        "target": rng.integers(2, vocabulary, (rows, target)).astype(np.int32),
    }


def torch_inputs(batch):
    return {
        "input_ids": torch.from_numpy(batch["prompt"]).long(),
        "attention_mask": torch.from_numpy(batch["prompt_mask"]).long(),
    }


@nnx.jit
def logits(model, batch):
    return model(batch)


def assert_near(got, want):
    """Within 2e-5 of the largest value (the goal is 1e-4); at most 2.2e-6 was seen."""
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * np.abs(want).max())


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other cost more than these small products."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name of a variant -> its folder, written once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = write(tmp_path_factory.mktemp("folder"), name)
        return made[name]

    return get


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_with_padding(folders, name):
    model, oracle = ours(folders(name)), original(folders(name))
    batch = make_batch(oracle.config.vocab_size)
    with torch.no_grad():
        want = oracle(**torch_inputs(batch), labels=torch.from_numpy(batch["target"]).long())
    assert_near(logits(model, batch), want.logits.numpy())
    assert (model.head is None) == (not VARIANTS[name][1])


@pytest.mark.parametrize("names", [["decoder"], ["encoder"], ["encoder", "decoder", ""]])
def test_the_embedding_under_its_other_names(folders, tmp_path, names):
    """As in older files; google/madlad400-3b-mt has the decoder's name alone."""
    shutil.copytree(folders("t5 1.1"), tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    embedding = tensors.pop("shared.weight")
    for name in names:
        tensors[f"{name}.embed_tokens.weight" if name else "shared.weight"] = embedding
    never_used = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tensors[never_used] = np.zeros((32, 3), np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(ours(tmp_path).embedding[...], embedding)


# What T5X calls the parts of a layer, in Hugging Face's order.
T5X_LAYER = {
    "encoder": {0: ("pre_attention_layer_norm", "attention"), 1: ("pre_mlp_layer_norm", "mlp")},
    "decoder": {
        0: ("pre_self_attention_layer_norm", "self_attention"),
        1: ("pre_cross_attention_layer_norm", "encoder_decoder_attention"),
        2: ("pre_mlp_layer_norm", "mlp"),
    },
}
T5X_LINEAR = {"q": "query", "k": "key", "v": "value", "o": "out"}
T5X_OTHERS = {
    "shared.weight": "token_embedder/embedding",
    "encoder.final_layer_norm.weight": "encoder/encoder_norm/scale",
    "decoder.final_layer_norm.weight": "decoder/decoder_norm/scale",
    "lm_head.weight": "decoder/logits_dense/kernel",
}


def t5x_name(name):
    """T5X's name of a tensor of Hugging Face's."""
    if name in T5X_OTHERS:
        return T5X_OTHERS[name]
    side, _, layer, _, part, *module, _ = name.split(".")
    if module[-1] == "relative_attention_bias":
        return f"{side}/relpos_bias/rel_embedding"
    norm, block = T5X_LAYER[side][int(part)]
    if module == ["layer_norm"]:
        return f"{side}/layers_{layer}/{norm}/scale"
    return f"{side}/layers_{layer}/{block}/{T5X_LINEAR.get(module[-1], module[-1])}/kernel"


@pytest.mark.parametrize("name", ["t5 1.1", "tied"])
def test_a_t5x_tree_gives_the_same_model(folders, tmp_path, name):
    config = t5.read_config(folders(name))
    tensors = load_file(folders(name) / "model.safetensors")
    tree = {
        f"target.{t5x_name(n).replace('/', '.')}": x if n == "shared.weight" else x.T
        for n, x in tensors.items()
    }
    for n, x in (tree | {"state.param_states.some.v": np.zeros(3, np.float32)}).items():
        where = {"driver": "file", "path": f"{tmp_path}/{n}/"}
        spec = {"driver": "zarr", "kvstore": where}
        tensorstore.open(spec, create=True, dtype=x.dtype, shape=x.shape).result()[...] = x
    pairs = [filled(config, tmp_path, t5.t5x_family(config)), ours(folders(name))]
    pairs = (states.paths(nnx.to_pure_dict(nnx.state(model))) for model in pairs)
    jax.tree.map(np.testing.assert_array_equal, *pairs)


@nnx.jit
def stepwise(model, batch):
    """The target fed token by token: (b, t, vocabulary)."""
    length = batch["target"].shape[1]
    fed = jnp.pad(batch["target"], ((0, 0), (1, 0)))[:, :length].T
    graphdef, state = nnx.split(model)

    def advance(cache, x):
        scores, cache = nnx.merge(graphdef, state).step(cache, *x)
        return cache, scores

    cache = model.init_cache(batch, length)
    return jax.lax.scan(advance, cache, (fed, jnp.arange(length)))[1].transpose(1, 0, 2)


@pytest.mark.parametrize("name", ["tied", "ul2"])
def test_decoding_with_a_cache_equals_the_forward_pass(folders, name):
    model = ours(folders(name))
    batch = make_batch(53)
    assert_near(stepwise(model, batch), np.asarray(logits(model, batch)))


LENGTH = 12


def padded(sequences, eos=1):
    """transformers' (n, 1 + t) -> (n, LENGTH): without the start token, zeros after the end."""
    tokens = sequences.numpy()[:, 1:]
    # Its beams are filled up with the EOS where the padding is 0.
    tokens = tokens * (np.cumsum(tokens == eos, axis=1) - (tokens == eos) == 0)
    return np.pad(tokens, ((0, 0), (0, LENGTH - tokens.shape[1])))


def generated(oracle, batch, **how):
    with torch.no_grad():
        return oracle.generate(**torch_inputs(batch), max_new_tokens=LENGTH, do_sample=False, **how)


def ends(tokens):
    """The positions of the EOS, of those sequences that have one."""
    return set(np.argwhere(np.asarray(tokens) == 1)[:, -1].tolist())


@nnx.jit
def greedy(model, batch):
    rows = batch["prompt"].shape[0]
    return decode.greedy(model.step, model.init_cache(batch, LENGTH), rows, LENGTH)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Twenty models whose sequences often end, each ours and theirs, and prompts for each."""
    made = []
    for seed in range(20):
        folder = write(tmp_path_factory.mktemp("model"), "t5 1.1", seed, eos=2.5)
        batch = make_batch(53, prompt=9, target=1, seed=seed)
        made.append((ours(folder), original(folder), batch))
    return made


def test_greedy_decoding_of_twenty_models_token_for_token(models):
    found = []
    for model, oracle, batch in models:
        tokens = greedy(model, batch)
        np.testing.assert_array_equal(tokens, padded(generated(oracle, batch)))
        found.append(np.asarray(tokens))
    found = np.concatenate(found)
    assert len(ends(found)) > 5 and not np.all(np.any(found == 1, axis=1))


@functools.partial(nnx.jit, static_argnames=("alpha", "eos_id"))
def beam(model, batch, alpha=0.0, eos_id=1):
    rows = batch["prompt"].shape[0]
    cache = model.init_cache(batch, LENGTH)
    return decode.beam(model.step, cache, rows, 4, LENGTH, alpha, eos_id)


def beams(oracle, batch, **how):
    """transformers' four sequences of each row and their scores, best first."""
    how = dict(num_beams=4, num_return_sequences=4, early_stopping=False) | how
    out = generated(oracle, batch, return_dict_in_generate=True, output_scores=True, **how)
    rows = len(batch["prompt"])
    tokens, scores = padded(out.sequences, how.get("eos_token_id", 1)), out.sequences_scores.numpy()
    return tokens.reshape(rows, 4, LENGTH), scores.reshape(rows, 4)


def test_beams_without_a_length_penalty_are_the_same_four_in_the_same_order(models):
    found = []
    for model, oracle, batch in models[:10]:
        tokens, scores = beam(model, batch)
        want_tokens, want_scores = beams(oracle, batch, length_penalty=0.0)
        np.testing.assert_array_equal(tokens, want_tokens)
        np.testing.assert_allclose(scores, want_scores, rtol=1e-4)
        found.append(np.asarray(tokens))
    found = np.concatenate(found)
    assert len(ends(found[:, 0])) > 3 and not np.all(np.any(found == 1, axis=2))


def test_penalties_are_of_another_form_and_agree_where_lengths_do(models):
    """Ours divides by ((5 + length) / 6) ** alpha, as T5X; transformers by length ** penalty."""
    model, oracle, batch = models[0]
    never = 99  # an EOS beyond the vocabulary: all sequences are cut off at one length
    tokens, scores = beam(model, batch, alpha=0.6, eos_id=never)
    want_tokens, want_scores = beams(oracle, batch, length_penalty=1.0, eos_token_id=never)
    np.testing.assert_array_equal(tokens, want_tokens)
    of_tokens = np.asarray(scores) * ((5 + LENGTH) / 6) ** 0.6
    np.testing.assert_allclose(of_tokens, want_scores * LENGTH, rtol=1e-4)


@pytest.mark.parametrize(
    ("bidirectional", "buckets", "maximum"),
    [(True, 32, 128), (False, 32, 128), (True, 12, 40), (False, 12, 40)],
)
def test_position_buckets(bidirectional, buckets, maximum):
    attention = transformers.models.t5.modeling_t5.T5Attention
    relative = np.arange(-300, 301)
    want = attention._relative_position_bucket(
        torch.from_numpy(relative), bidirectional, buckets, maximum
    )
    got = layers.position_bucket(jnp.asarray(relative), bidirectional, buckets, maximum)
    np.testing.assert_array_equal(got, want.numpy())
