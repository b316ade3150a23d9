"""Batches of prompts in a frame of ids, for tests of models."""

from collections.abc import Mapping, Sequence

import numpy as np


def framed(
    batch: Mapping[str, np.ndarray],
    before: Sequence[int] = (),
    after: Sequence[int] = (),
    *,
    seen: Sequence[int] | None = None,
    place: int = 0,
) -> dict[str, np.ndarray]:
    """The batch with ids around its prompts, and with `frame` (b, 3).

    Args:
      batch: of right-padded prompts; image_mask, where there is one, tells which have an image.
      before, after: ids around every prompt.
      seen: in place of `before` where there is an image.
      place: of them, how many stand before the image.
    """
    shown = batch.get("image_mask", np.zeros(len(batch["prompt"]), bool))
    heads = [list(seen if image and seen is not None else before) for image in shown]
    own = [ids[mask] for ids, mask in zip(batch["prompt"], batch["prompt_mask"], strict=True)]
    rows = [[*head, *ids, *after] for head, ids in zip(heads, own, strict=True)]
    width = batch["prompt"].shape[1] + max(map(len, heads)) + len(after)
    spans = [
        [place * bool(image), len(head), len(head) + len(ids)]
        for image, head, ids in zip(shown, heads, own, strict=True)
    ]
    return {
        **batch,
        "prompt": np.array([row + [0] * (width - len(row)) for row in rows], np.int32),
        "prompt_mask": np.arange(width) < np.array([[len(row)] for row in rows]),
        "frame": np.array(spans, np.int32),
    }
