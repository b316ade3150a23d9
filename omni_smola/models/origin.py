"""Where a loaded backbone came from: what its inputs must be, and what a file of experts names."""

import dataclasses

from flax import nnx


@dataclasses.dataclass(frozen=True)
class Origin:
    """A plain value that `load_backbone` keeps as the attribute `origin` of the model.

    Attributes:
      name: as `load_backbone` was given it.
      weights: the same of its weights, "" for those that belong to the name.
      dtype: of the frozen weights and of activations.
      image_size: side of the image that the model reads, in pixels.
      vocabulary: how many token ids the model embeds.
      tokenizer: the file or folder of its tokenizer, "" where none is known.
      frame: of its prompts and answers, a name of `omni_smola.data.frames.NAMES`.
      family: how the backbone is prompted, a key of `omni_smola.data.frames.FRAMES`.
      frame_ids: special tokens of the frame that the model itself knows, each with its id.
    """

    name: str
    weights: str
    dtype: str
    image_size: int
    vocabulary: int
    tokenizer: str
    frame: str = "auto"
    family: str = "t5"
    frame_ids: tuple[tuple[str, int], ...] = ()


def origin(model: nnx.Module) -> Origin | None:
    """The origin of a model, None for one that `load_backbone` has not made."""
    return getattr(model, "origin", None)
