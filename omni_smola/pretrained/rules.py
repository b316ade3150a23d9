"""The language in which a family of public checkpoints is described: whose tensor is which of ours.

    Rule("encoder.block.{}.layer.0.SelfAttention.q.weight",
         "encoder/stack/layers/attention/qkv/kernel/q", TRANSPOSE)

says that one tensor of every layer of the checkpoint, turned around, is a slice of one of our
stacked parameters. `{}` in a name is the index of a layer; our path has no index, as the layers
of a `Stack` lie along its first axis. A name that ends with `[{}]` means row {} of one tensor, in
which the checkpoint too keeps all layers:

    Rule("params/img/Transformer/encoderblock/LayerNorm_0/scale[{}]", "encoder/layers/norm_1/scale")

A parameter whose shape depends on the config alone, such as positional embeddings at another
resolution, has a `fit`, which is told the shape that is wanted.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]
Fit = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


def transpose(x: np.ndarray) -> np.ndarray:
    """(out, in), as PyTorch stores a linear layer, to (in, out)."""
    return x.T


def patch_kernel(x: np.ndarray) -> np.ndarray:
    """A convolution's kernel (width, 3, p, p) to (p * p * 3, width): rows, columns, channels."""
    return x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0])


@dataclasses.dataclass(frozen=True)
class Rule:
    """Where one parameter of ours comes from.

    Attributes:
      theirs: name in the checkpoint, `{}` for the index of the layer; `name[{}]` is a row.
      ours: path of the parameter in the bare backbone, as `state.backbone_weights` names it.
      transform: of one tensor, or of one layer's slice, before it is placed; None is none.
      first: index of the checkpoint's layer that is layer 0 of our stack.
      step: how many of the checkpoint's layers lie between two of our stack.
      others: other names under which checkpoints hold the same tensor, tried in their order; where
        a file has several, their values must agree.
      fit: after `transform`, of (tensor, shape wanted) where the tensor has another shape; raises
        UserError where it cannot, see `position`.
    """

    theirs: str
    ours: str
    transform: Transform | None = None
    first: int = 0
    step: int = 1
    others: tuple[str, ...] = ()
    fit: Fit | None = None


@dataclasses.dataclass(frozen=True)
class Family:
    """How one family's checkpoints are read.

    Attributes:
      name: the family's name in messages.
      rules: for every parameter of ours that a checkpoint holds.
      ignored: regular expressions for whole names of tensors that have no part in our model, such
        as a pooling head.
      model_types: what config.json may call the model, where there is one; none is anything.
      root: what names begin with where those of a bare model, saved without its head, do not.
    """

    name: str
    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()
    root: str = ""
