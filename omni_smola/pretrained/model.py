"""A backbone ready for Python: sizes, weights and tokenizer by one name.

This is the short way for a notebook or a script, on one device. The command line, which divides a
model over a mesh, makes its own (`omni_smola.training.model`).
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from omni_smola.config_arguments import paths as paths_of
from omni_smola.data import frames
from omni_smola.errors import UserError
from omni_smola.models import backbones
from omni_smola.models.layers import Precision
from omni_smola.models.origin import Origin
from omni_smola.models.t5 import Options
from omni_smola.pretrained import backbones as public
from omni_smola.pretrained import native
from omni_smola.quick_jit import quick_jit
from omni_smola.trees import nest, paths

DTYPES = ("float32", "bfloat16")
RANDOM = "random"


def load_backbone(
    name_or_path: str,
    *,
    weights: str | None = None,
    dtype: str = "float32",
    resolution: int = 0,
    frame: str = "auto",
    seed: int = 0,
) -> nnx.Module:
    """A frozen vision-language model, to attach experts to.

    Args:
      name_or_path: "tiny", whose weights are part of this package; the folder of a public
        checkpoint, or `hf://OWNER/REPO`, whose config.json gives the sizes; or the name of a size,
        such as "so400m_t5_base", together with `weights`.
      weights: where the weights of a named size come from: a checkpoint's folder or
        `hf://OWNER/REPO` (of a PaLI two, joined by +: the SigLIP's and the T5's), a .safetensors
        file written by this package, or "random". None reads those that belong to the name.
      dtype: of the frozen weights and of activations, "float32" or "bfloat16".
      resolution: side of the image in pixels; 0 is the backbone's own.
      frame: what stands around prompts and answers, as `config.data.frame` on the command line;
        "auto" is what the backbone was trained with.
      seed: of weights that come from no checkpoint: all of them where `weights` is "random", else
        those of a PaLI's visual projection.

    Returns:
      The NNX model, on the default device. Its attribute `origin` says what was loaded. Called with
      a batch of `make_batch`, it gives logits (b, t, vocabulary) float32 of the batch's target.

    Raises:
      UserError: an unknown name, a name without weights, weights that do not fit, a resolution that
        the patches do not tile, another dtype, or no such frame.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype is {dtype!r}: choose {' or '.join(DTYPES)}.")
    frames.check_name(frame)
    named = name_or_path in backbones.names()
    _check_name(name_or_path, weights, named)
    config = backbones.named(name_or_path) if named else public.read_config(name_or_path)
    config = backbones.at_resolution(config, name_or_path, resolution)
    precision = Precision(jnp.dtype(dtype), jnp.dtype(dtype))

    def make() -> nnx.Module:
        return backbones.make(config, options=Options(precision), rngs=nnx.Rngs(seed))

    source = (weights or native.shipped(name_or_path)) if named else name_or_path
    family, frame_ids = backbones.frame(config, name_or_path)
    model: Any = _filled(make, functools.partial(_read, source, config))
    model.origin = Origin(
        name=name_or_path,
        weights=weights or "",
        dtype=dtype,
        image_size=backbones.image_size(config),
        vocabulary=backbones.vocabulary(config),
        tokenizer=_tokenizer(name_or_path, source),
        frame=frames.known_as(frame, family),
        family=family,
        frame_ids=tuple(sorted(frame_ids.items())),
    )
    return model


def _check_name(name: str, weights: str | None, named: bool) -> None:
    """Raises UserError for a name that says too little, or a path that says too much."""
    if not named and weights is not None:
        raise UserError(
            f"load_backbone was given the checkpoint {name!r} and weights={weights!r}: a "
            f"checkpoint has weights of its own. To load others, name one of "
            f"{', '.join(backbones.names())}."
        )
    if named and weights is None and name not in native.SHIPPED:
        raise UserError(
            f"The weights of {name!r} are not part of this package, only those of "
            f"{', '.join(native.SHIPPED)}: give weights='hf://OWNER/REPO', the path of a "
            "checkpoint, or weights='random'."
        )
    if named:
        return
    if len(paths_of(name)) > 1:
        raise UserError(
            f"{name!r} names two checkpoints, and their sizes follow from neither: name the size "
            f"too, as in load_backbone('so400m_t5_base', weights={name!r})."
        )
    is_folder = bool(name) and pathlib.Path(name).expanduser().is_dir()
    if not name.startswith("hf://") and not is_folder:
        raise UserError(
            f"There is no backbone {name!r}: give the folder of a checkpoint, hf://OWNER/REPO, or "
            f"one of the names {', '.join(backbones.names())}."
        )


def _read(
    source: str, config: backbones.Backbone, wanted: dict[str, jax.ShapeDtypeStruct]
) -> dict[str, jax.Array]:
    """The weights that `source` has, by path."""
    if source == RANDOM:
        return {}
    if public.is_public(source):
        return public.read(source, config, wanted)
    return native.read(source, wanted)


def _filled(
    make: Callable[[], nnx.Module],
    read: Callable[[dict[str, jax.ShapeDtypeStruct]], dict[str, jax.Array]],
) -> nnx.Module:
    """The model with the weights that `read` has; only the others are drawn."""
    graphdef, state = nnx.split(nnx.eval_shape(make))
    wanted = paths(nnx.to_pure_dict(state))
    values = read(wanted)
    absent = wanted.keys() - values.keys()
    if absent:

        def drawn() -> dict[str, jax.Array]:
            made = paths(nnx.to_pure_dict(nnx.state(make())))
            return {path: made[path] for path in absent}

        values = values | quick_jit(drawn)()
    nnx.replace_by_pure_dict(state, nest(values))
    return nnx.merge(graphdef, state)


def _tokenizer(name: str, source: str) -> str:
    """Where the tokenizer is: beside a public checkpoint, or, "shipped", in this package."""
    if name in native.SHIPPED:
        return "shipped"
    return str(public.folder(source)) if source != RANDOM and public.is_public(source) else ""
