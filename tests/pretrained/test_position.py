"""Resampled positional embeddings: big_vision's way against SciPy, and what both ways keep."""

import numpy as np
import pytest
import scipy.ndimage

from omni_smola.errors import UserError
from omni_smola.pretrained import position


def table(side, width=3, leading=0):
    return np.random.default_rng(0).normal(size=(leading + side * side, width)).astype(np.float32)


@pytest.mark.parametrize(("old", "new"), [(4, 7), (7, 4), (16, 5), (5, 16), (3, 4), (2, 1)])
def test_bilinear_is_scipys_zoom(old, new):
    x = table(old)
    zoom = (new / old, new / old, 1)
    want = scipy.ndimage.zoom(x.reshape(old, old, 3), zoom, order=1).reshape(-1, 3)
    np.testing.assert_allclose(position.bilinear(x, (new * new, 3)), want, atol=1e-5)


@pytest.mark.parametrize("resample", [position.bicubic, position.bilinear])
def test_what_is_kept(resample):
    x = table(5, leading=2)
    assert resample(x, x.shape) is x
    y = resample(x, (2 + 49, 3), leading=2)
    assert y.shape == (51, 3)
    np.testing.assert_array_equal(y[:2], x[:2])
    flat = np.full((25, 3), 1.5, np.float32)
    np.testing.assert_allclose(resample(flat, (64, 3)), 1.5, rtol=1e-6)
    # A slope along rows stays one, and is none along columns.
    ramp = np.repeat(np.arange(8, dtype=np.float32), 8)[:, None]
    got = resample(ramp, (144, 1)).reshape(12, 12)
    assert np.all(np.diff(got[2:-2], axis=0) > 0)
    np.testing.assert_allclose(np.diff(got, axis=1), 0, atol=1e-5)


@pytest.mark.parametrize("resample", [position.bicubic, position.bilinear])
def test_what_is_no_grid_is_told(resample):
    with pytest.raises(UserError, match="of 8 tokens are no square grid"):
        resample(table(5), (8, 3))
    with pytest.raises(UserError, match="of 24 tokens are no square grid"):
        resample(table(5), (49, 3), leading=1)
    with pytest.raises(UserError, match=r"shape \(25, 3\) cannot become \(25, 4\)"):
        resample(table(5), (25, 4))
