"""Where an image is put into a prompt, and which tokens are the prompt's own."""

import jax.numpy as jnp
import numpy as np

from omni_smola.models import prompts


def test_an_image_stands_where_the_frame_says():
    text = np.arange(12).reshape(2, 6)
    image = 100 + np.arange(4).reshape(2, 2)
    kinds = np.ones((2, 6), np.int32), np.full((2, 2), 2, np.int32)

    def joined(batch):
        x, k = prompts.with_image(
            (jnp.asarray(text)[..., None], jnp.asarray(kinds[0])),
            (jnp.asarray(image)[..., None], jnp.asarray(kinds[1])),
            batch,
        )
        return np.asarray(x[..., 0]).tolist(), np.asarray(k).tolist()

    got, found = joined({"frame": jnp.asarray([[3, 0, 0], [0, 0, 0]])})
    assert got == [[0, 1, 2, 100, 101, 3, 4, 5], [102, 103, 6, 7, 8, 9, 10, 11]]
    assert found == [[1, 1, 1, 2, 2, 1, 1, 1], [2, 2, 1, 1, 1, 1, 1, 1]]
    got, _ = joined({"frame": jnp.asarray([[6, 0, 0], [1, 0, 0]])})
    assert got == [[0, 1, 2, 3, 4, 5, 100, 101], [6, 102, 103, 7, 8, 9, 10, 11]]
    first, _ = joined({})
    assert first == [[100, 101, 0, 1, 2, 3, 4, 5], [102, 103, 6, 7, 8, 9, 10, 11]]


def test_a_frame_is_no_part_of_the_prompts_own_tokens():
    mask = jnp.asarray([[True] * 5 + [False], [True] * 6])
    batch = {"prompt_mask": mask, "frame": jnp.asarray([[1, 2, 4], [0, 3, 3]])}
    own = prompts.own_tokens(batch)
    np.testing.assert_array_equal(own, [[0, 0, 1, 1, 0, 0], [0] * 6])
    np.testing.assert_array_equal(prompts.own_tokens({"prompt_mask": mask}), mask)
