"""Sentence encoders as local Hugging Face folders, such as one of all-MiniLM-L6-v2.

Read are config.json, model.safetensors and, where there is one, 1_Pooling/config.json. Nothing is
downloaded and nothing unpickled.
"""

import contextlib
import pathlib
import re
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from omni_smola import json_object
from omni_smola.errors import UserError
from omni_smola.models.layers import Precision
from omni_smola.models.sentence_encoder import BertConfig, SentenceEncoder
from omni_smola.pretrained import names, towers
from omni_smola.pretrained.native import mismatches
from omni_smola.pretrained.reader import FLOATING, Reader
from omni_smola.pretrained.safetensors_file import SafetensorsFile
from omni_smola.pretrained.sentences import fitted, some

WEIGHTS = "model.safetensors"

# Fields of config.json -> ours.
_SIZES = {
    "vocab_size": "vocabulary",
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp",
    "max_position_embeddings": "positions",
    "type_vocab_size": "token_types",
}
_ONLY = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
# Our modules -> theirs; {} is the layer.
_LAYER = "encoder.layer.{}."
_LINEARS = {
    "encoder/layers/qkv/*/q": _LAYER + "attention.self.query",
    "encoder/layers/qkv/*/k": _LAYER + "attention.self.key",
    "encoder/layers/qkv/*/v": _LAYER + "attention.self.value",
    "encoder/layers/out/*/o": _LAYER + "attention.output.dense",
    "encoder/layers/mlp/wi/*/wi_0": _LAYER + "intermediate.dense",
    "encoder/layers/mlp/wo/*/wo": _LAYER + "output.dense",
}
_NORMS = {
    "norm": "embeddings.LayerNorm",
    "encoder/layers/norm_1": _LAYER + "attention.output.LayerNorm",
    "encoder/layers/norm_2": _LAYER + "output.LayerNorm",
}
_TABLES = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
}
_THEIRS = (
    {path.replace("*", "kernel"): f"{name}.weight" for path, name in _LINEARS.items()}
    | {path.replace("*", "bias"): f"{name}.bias" for path, name in _LINEARS.items()}
    | {f"{path}/scale": f"{name}.weight" for path, name in _NORMS.items()}
    | {f"{path}/bias": f"{name}.bias" for path, name in _NORMS.items()}
    | {path: f"{name}.weight" for path, name in _TABLES.items()}
)
# The pooler and the heads of pre-training have no part in a mean-pooled embedding; position_ids
# are 0, 1, 2, ... and stand in older files.
_IGNORED = re.compile(r"(bert\.)?(pooler\..*|embeddings\.position_ids)|cls\..*")


def read_config(folder: str | PathLike) -> BertConfig:
    """The sizes of a folder's encoder; reads no weights.

    Raises:
      UserError: no such folder or config.json, not a BERT as we compute it, a size that is missing
        or no number above zero, or a folder whose own pooling is not the mean.
    """
    folder = pathlib.Path(folder).expanduser()
    fields = _read_json(folder / "config.json", folder)
    if fields.get("model_type") != "bert":
        raise UserError(
            f"The folder {folder} holds a model of type {fields.get('model_type')!r}, but the "
            "sentence encoder is a 'bert': choose the folder of one, such as all-MiniLM-L6-v2."
        )
    for name, known in _ONLY.items():
        if fields.get(name, known) != known:
            raise UserError(
                f"{name} is {fields[name]!r} in {folder}/config.json, but only {known!r} is "
                "implemented: choose another sentence encoder."
            )
    bad = [
        f"{name} is {fields.get(name, 'missing')!r}"
        for name in _SIZES
        if not towers.is_size(name, fields.get(name))
    ]
    epsilon = fields.get("layer_norm_eps", BertConfig.epsilon)
    if type(epsilon) not in (int, float) or not 0 <= epsilon < 1e30:
        bad.append(f"layer_norm_eps is {epsilon!r}")
    if not bad and fields["hidden_size"] % fields["num_attention_heads"]:
        bad = ["hidden_size is no multiple of num_attention_heads"]
    if bad:
        raise UserError(
            f"{folder}/config.json does not describe a BERT ({'; '.join(bad)}): sizes are whole "
            "numbers above zero. Copy the folder again."
        )
    _check_pooling(folder)
    return BertConfig(**{ours: fields[name] for name, ours in _SIZES.items()}, epsilon=epsilon)


def load(folder: str | PathLike) -> tuple[BertConfig, dict[str, np.ndarray]]:
    """The sizes and the weights of a folder's encoder.

    Any prefix may stand before the names in the file, such as `bert.`, see `names.align`. The
    weights of the pooler and of pre-training's heads are left out, as a mean-pooled embedding does
    not use them.

    Returns:
      The config, and path in `SentenceEncoder` -> float32 array; the layers of the encoder are
      stacked on a leading axis and matrices are (in, out).

    Raises:
      UserError: as `read_config`; a pickle in place of a safetensors file, a file cut short, or
        tensors that are missing, unexpected or of another shape, all of them in one sentence.
    """
    config = read_config(folder)
    folder = pathlib.Path(folder).expanduser()
    file = folder / WEIGHTS
    if not file.is_file():
        raise UserError(_no_weights(folder))
    shapes = _shapes(config)
    wanted = dict(_wanted(shapes))
    with contextlib.closing(SafetensorsFile(file)) as opened:
        reader = names.align(opened, ((name,) for name in wanted))
        _check_shapes(file, wanted, reader)

        def read(path: str, layer: int = 0) -> np.ndarray:
            tensor = reader.read(_THEIRS[path].format(layer))
            return (tensor.T if "/kernel/" in path else tensor).astype(np.float32)

        return config, {
            path: np.stack([read(path, layer) for layer in range(config.depth)])
            if _stacked(path)
            else read(path)
            for path in shapes
        }


def sentence_encoder(folder: str | PathLike, precision: Precision) -> SentenceEncoder:
    """The encoder of a folder, its weights in `precision.param_dtype`; raises as `load`."""
    config, weights = load(folder)
    graphdef, state = nnx.split(_abstract(config, precision))
    flat = {
        path: leaf.replace(jnp.asarray(weights["/".join(path)], precision.param_dtype))
        for path, leaf in state.flat_state()
    }
    return nnx.merge(graphdef, nnx.State.from_flat_path(flat))


def _abstract(config: BertConfig, precision: Precision) -> SentenceEncoder:
    return nnx.eval_shape(lambda: SentenceEncoder(config, precision=precision, rngs=nnx.Rngs(0)))


def _shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter of our encoder."""
    state = nnx.state(_abstract(config, Precision()), nnx.Param)
    return {"/".join(path): leaf.shape for path, leaf in state.flat_state()}


def _stacked(path: str) -> bool:
    return path.startswith("encoder/layers/")


def _wanted(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Their name and shape of every tensor that the parameters of our encoder are made of."""
    for path, shape in shapes.items():
        layers, shape = (shape[0], shape[1:]) if _stacked(path) else (1, shape)
        for layer in range(layers):
            yield _THEIRS[path].format(layer), shape[::-1] if "/kernel/" in path else shape


def _check_shapes(
    file: pathlib.Path, wanted: Mapping[str, tuple[int, ...]], reader: Reader
) -> None:
    entries = {n: e for n, e in reader.entries.items() if not _IGNORED.fullmatch(n)}
    problems = mismatches(wanted, {name: entry.shape for name, entry in entries.items()})
    problems += [
        f"{name} holds {entry.dtype}, which is none of {', '.join(FLOATING)}"
        for name, entry in entries.items()
        if name in wanted and entry.dtype not in FLOATING
    ]
    if problems:
        start = f"The file {file} does not hold the weights that its config.json describes: "
        own = f". Its own names are such as {some(reader.entries)}"
        raise UserError(
            fitted(start, problems, f"{own}. Copy both files anew from the same model.")
        )


def _no_weights(folder: pathlib.Path) -> str:
    pickles = [name for name in ("pytorch_model.bin", "model.pt") if (folder / name).exists()]
    if not pickles:
        return f"The folder {folder} has no {WEIGHTS}: give the whole folder of the model."
    return (
        f"The folder {folder} has its weights only as a pickle, {pickles[0]}, which can run any "
        "code when it is read: where you trust its author, convert it once by transformers' "
        f"AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER), which writes {WEIGHTS}."
    )


def _check_pooling(folder: pathlib.Path) -> None:
    """sentence-transformers writes which pooling a model was trained with; ours is the mean."""
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        return
    fields = _read_json(file, folder)
    modes = {name for name, on in fields.items() if name.startswith("pooling_mode_") and on is True}
    word = fields.get("pooling_mode") or "mean"  # newer versions write one, or a list of them
    modes |= {word} if isinstance(word, str) else set(word)
    other = modes - {"mean", "pooling_mode_mean_tokens"}
    if other:
        raise UserError(
            f"The model of {folder} pools its tokens by {', '.join(sorted(other))} "
            "(1_Pooling/config.json), but the sentence encoder takes their mean: choose a model "
            "trained with mean pooling."
        )


def _read_json(file: pathlib.Path, folder: pathlib.Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(
            f"The sentence encoder's folder {folder} has no readable {file.name} "
            "(No such file or directory): give the local folder of a Hugging Face model."
        )
    return json_object.read(file)
