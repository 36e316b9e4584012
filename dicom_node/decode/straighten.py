"""Tilted or unevenly spaced slices onto a right-angled, even grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.decode.frames import Frame
from pipeline.geometry import Geometry


def straightened(voxels: NDArray[Any], frames: Sequence[Frame], onto: Geometry, *, outside: int) -> NDArray[Any]:
    """``[k, j, i]`` values on the grid `onto`, linear between slices and within them, of the same dtype as `voxels`.

    voxels: (slices, rows, columns) in the order of `frames`, which ascend along their normal; `outside` where no slice
    has data. Each slice's own position counts, so tilt, uneven gaps and jitter are all undone at once.
    """
    first = frames[0]
    normal = first.normal_lps
    along = np.array([frame.along_mm for frame in frames])
    positions = np.array([frame.position_lps_mm for frame in frames])
    out = np.empty(onto.shape, voxels.dtype)
    step = max(1, 1_000_000 // (onto.shape[1] * onto.shape[2]))
    for k in range(0, onto.shape[0], step):  # slabs keep the float64 coordinates small
        slab = onto.crop((k, 0, 0), (min(k + step, onto.shape[0]), *onto.shape[1:]))
        points = slab.grid_lps()
        depth = points @ normal
        index = np.interp(depth, along, np.arange(len(frames)), left=-1.0, right=-1.0)
        corner = np.stack([np.interp(depth, along, positions[:, axis]) for axis in range(3)], axis=-1)
        offset = points - corner
        coordinates = np.stack(
            [index, offset @ first.column_lps / first.spacing_mm[0], offset @ first.row_lps / first.spacing_mm[1]]
        )
        values = ndimage.map_coordinates(
            voxels, coordinates, output=np.float32, order=1, mode="constant", cval=float(outside)
        )
        values[(index < 0) | (coordinates[1] < 0) | (coordinates[2] < 0)] = outside
        out[k : k + step] = np.rint(values) if out.dtype == np.int16 else values
    return out
