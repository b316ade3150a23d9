"""The transformation against torch's pooling and transformers' Deformable DETR, random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.experts.adt import Adt, AdtConfig, AveragePool
from omni_smola.experts.vision_map import VisionMap

torch = pytest.importorskip("torch")
modeling = pytest.importorskip("transformers.models.deformable_detr.modeling_deformable_detr")

CONFIG = AdtConfig(side=4, layers=2, heads=4, points=3, d_ff=24)
WIDTH = 16
SIZES = np.array([[5, 7], [9, 3]], np.int32)
TOKENS = np.random.default_rng(0).normal(size=(2, 35, WIDTH)).astype(np.float32)

# Ours -> theirs.
LINEARS = {
    ("attention", "query"): "self_attn.q_proj",
    ("attention", "key"): "self_attn.k_proj",
    ("attention", "value"): "self_attn.v_proj",
    ("attention", "out"): "self_attn.o_proj",
    ("reading", "offset"): "encoder_attn.sampling_offsets",
    ("reading", "weight"): "encoder_attn.attention_weights",
    ("reading", "value"): "encoder_attn.value_proj",
    ("reading", "out"): "encoder_attn.output_proj",
    ("wi",): "mlp.fc1",
    ("wo",): "mlp.fc2",
}
NORMS = {
    ("attention_norm",): "self_attn_layer_norm",
    ("reading_norm",): "encoder_attn_layer_norm",
    ("norm",): "final_layer_norm",
}


def random_adt():
    """An Adt of random weights; its offsets reach over the borders of the map."""
    rng = np.random.default_rng(1)
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: Adt(CONFIG, WIDTH, rngs=nnx.Rngs(0))))
    state = jax.tree.map(
        lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), jnp.float32), abstract
    )
    adt = nnx.merge(graphdef, state)
    adt.reference[...] = jnp.asarray(rng.uniform(size=(CONFIG.side**2, 2)), jnp.float32)
    return adt


def their_layer(layers, index):
    """transformers' decoder layer with the weights of our layer `index`."""
    config = modeling.DeformableDetrConfig(
        d_model=WIDTH,
        decoder_attention_heads=CONFIG.heads,
        decoder_n_points=CONFIG.points,
        decoder_ffn_dim=CONFIG.d_ff,
        num_feature_levels=1,
        attn_implementation="eager",
    )
    weights = {}
    for ours, theirs in (LINEARS | NORMS).items():
        part = layers
        for name in ours:
            part = part[name]
        main = part["kernel"][index].T if ours in LINEARS else part["scale"][index]
        weights[f"{theirs}.weight"] = torch.tensor(np.asarray(main))
        weights[f"{theirs}.bias"] = torch.tensor(np.asarray(part["bias"][index]))
    layer = modeling.DeformableDetrDecoderLayer(config)
    layer.load_state_dict(weights, strict=True)
    return layer.eval()


def their_pool(rows, columns, tokens, side):
    grid = torch.tensor(tokens[: rows * columns]).reshape(1, rows, columns, -1).permute(0, 3, 1, 2)
    pooled = torch.nn.AdaptiveAvgPool2d(side)(grid)
    return pooled.permute(0, 2, 3, 1).reshape(1, side * side, -1)


def test_the_transformation_is_deformable_detrs_decoder_on_the_pooled_map():
    adt = random_adt()
    graphdef, state = nnx.split(adt)
    vision_map = VisionMap(jnp.asarray(TOKENS), jnp.asarray(SIZES))
    got = jax.jit(lambda state, vision_map: nnx.merge(graphdef, state)(vision_map))(
        state, vision_map
    )
    layers = nnx.to_pure_dict(state)["layers"]
    their_layers = [their_layer(layers, index) for index in range(CONFIG.layers)]
    for row, (rows, columns) in enumerate(SIZES.tolist()):
        query = their_pool(rows, columns, TOKENS[row], CONFIG.side)
        with torch.no_grad():
            for layer in their_layers:
                query = layer(
                    query,
                    object_queries_position_embeddings=torch.tensor(np.asarray(adt.positions)),
                    reference_points=torch.tensor(np.asarray(adt.reference))[None, :, None],
                    spatial_shapes=torch.tensor([[rows, columns]]),
                    spatial_shapes_list=[(rows, columns)],
                    level_start_index=torch.tensor([0]),
                    encoder_hidden_states=torch.tensor(TOKENS[row : row + 1, : rows * columns]),
                )
        np.testing.assert_allclose(got[row], query[0].numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [1, 4, 6])
def test_average_pooling_is_torchs_for_every_size_of_map(side):
    pool = AveragePool(AdtConfig(side=side), WIDTH, rngs=nnx.Rngs(0))
    sizes = np.array([[5, 7], [9, 3], [1, 1], [4, 8], [2, 17]], np.int32)
    tokens = np.random.default_rng(2).normal(size=(5, 35, WIDTH)).astype(np.float32)
    got = pool(VisionMap(jnp.asarray(tokens), jnp.asarray(sizes)))
    for row, (rows, columns) in enumerate(sizes.tolist()):
        want = their_pool(rows, columns, tokens[row], side)[0].numpy()
        np.testing.assert_allclose(got[row], want, rtol=0, atol=1e-6)
