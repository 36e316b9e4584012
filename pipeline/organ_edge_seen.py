"""Whether the baseline bears out the organ's edge: where it does not, an edge may not lower the required margin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from pipeline.geometry import FloatArray
from pipeline.sampling import Box, box_of, extent_of
from pipeline.segment import robust
from pipeline.transform import identity, resample, sample_distance
from pipeline.volume import Mask, Volume

Array = NDArray[np.float32]

#: Where the baseline is looked at beyond the organ's edge; nearer, blur mixes what lies on either side. This and what
#: follows are this project's own choice.
BEYOND_MM = (2.0, 6.0)
#: As bright as the organ: within so many spreads of its median, and at least so far.
ALIKE_SPREADS = 2.0
LEAST_SPREAD_HU = 8.0
LEAST_SPREAD_SHARE = 0.08  # of MR signal
_GRID_MM = 1.5
_NEIGHBORS = 12
_TUMOR_RIM_MM = 3.0


def edge_unseen(
    baseline: Volume, organ: Mask, tumors: Sequence[Mask], points_lps_mm: FloatArray, *, reach_mm: float
) -> NDArray[np.bool_]:
    """(n,) whether what lies beyond the organ's edge nearest to each of (n, 3) points is as bright as the organ itself,
    or cannot be seen at all.

    All in the baseline's frame. organ: as `closed_organ` gives it, tumors included; reach_mm: no point is farther from
    its edge.
    """
    unseen = np.ones(len(points_lps_mm), bool)
    if not len(points_lps_mm):
        return unseen
    box = box_of(points_lps_mm).grown(reach_mm + BEYOND_MM[1])
    values, places = _values(baseline, box.meet(extent_of(baseline.geometry)))
    if not len(places):
        return unseen
    organ_mm = sample_distance(organ, places)
    tumor_mm = np.max([sample_distance(tumor, places) for tumor in tumors], axis=0)
    inside = (organ_mm > BEYOND_MM[0]) & (tumor_mm < -_TUMOR_RIM_MM)
    beyond = (organ_mm < -BEYOND_MM[0]) & (organ_mm > -BEYOND_MM[1])
    if inside.sum() < _NEIGHBORS or beyond.sum() < _NEIGHBORS:
        return unseen
    middle, spread = robust(values[inside])
    least = LEAST_SPREAD_HU if baseline.quantity == "ct_hu" else LEAST_SPREAD_SHARE * abs(middle)
    alike = np.abs(values[beyond] - middle) <= ALIKE_SPREADS * max(spread, least)
    _, nearest = cKDTree(places[beyond]).query(points_lps_mm, k=_NEIGHBORS)
    return np.asarray(alike[nearest].mean(axis=1) > 0.5)


def _values(baseline: Volume, box: Box) -> tuple[Array, FloatArray]:
    """(n,) smoothed values in a box every 1.5 mm where the baseline has any, and their (n, 3) places."""
    part_of = baseline.geometry.box_around(box.corners(), pad_mm=2 * _GRID_MM)
    if any(s.stop <= s.start for s in part_of):
        return np.empty(0, np.float32), np.empty((0, 3))
    part = baseline.crop(part_of)
    smooth = ndimage.gaussian_filter(part.voxels.astype(np.float32), _GRID_MM / part.geometry.spacing_mm)
    grid = box.grid(_GRID_MM, baseline.geometry.frame_uid)
    values = resample(Volume(smooth, part.geometry, part.quantity), grid, identity(grid.frame_uid))
    known = np.isfinite(values)
    return values[known], grid.grid_lps()[known]
