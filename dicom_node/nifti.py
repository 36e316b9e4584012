"""NIfTI's way to place a grid, to ours and back: the one place where RAS and LPS, and the order of axes, are turned."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pipeline.geometry import FloatArray

#: NIfTI counts x to the right's opposite and y to the front, so the first two axes change sign; its own inverse.
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: NIfTI's index runs (i, j, k), ours [k, j, i]; its own inverse too.
_REVERSED = [2, 1, 0, 3]


def ras_affine(lps_from_index: ArrayLike) -> FloatArray:
    """(4, 4) from a NIfTI index (i, j, k, 1) to RAS millimetres. lps_from_index: that of a `Geometry`."""
    return np.asarray(_RAS_FROM_LPS @ np.asarray(lps_from_index, float)[:, _REVERSED])


def lps_from_index(affine: ArrayLike) -> FloatArray:
    """(4, 4) from our index (k, j, i, 1) to LPS millimetres. affine: that of a NIfTI image."""
    return np.asarray(_RAS_FROM_LPS @ np.asarray(affine, float)[:, _REVERSED])
