"""Where the frames of a multi-frame object lie: one regular grid for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.decode.files import Header
from dicom_node.refusal import Refused
from pipeline.geometry import Geometry

#: How far a frame may lie from its place on the grid, in spacings, and its axes from the first frame's.
_OFF_GRID = 0.1
_OFF_AXIS = 1e-3
#: How far directions may be from one another's right angle, and from a length of one.
_OFF_UNIT = 1e-2


def functional_groups(header: Header) -> tuple[list[Dataset], Dataset]:
    """Each frame's own functional groups, and those they share."""
    shared = header.dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    return list(header.dataset.PerFrameFunctionalGroupsSequence), shared[0]


def group_of(frame: Dataset, shared: Dataset, name: str) -> Dataset:
    """The frame's functional group of that name, else the shared one. Raises ValueError where there is neither."""
    sequence = frame.get(name) or shared.get(name)
    if not sequence:
        raise ValueError(f"no {name}")
    item: Dataset = sequence[0]
    return item


def image_axes(stated: Sequence[float], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The directions along a row and down a column, from an ImageOrientationPatient. Raises Refused
    ``region_unreadable``, naming the key, where they are no directions at right angles.
    """
    axes = np.array(stated, float)
    row, column = axes[:3], axes[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not (max(abs(length - 1) for length in lengths) <= _OFF_UNIT and abs(row @ column) <= _OFF_UNIT):
        raise Refused("region_unreadable", f"{key}: the object has an impossible image orientation; export it again.")
    row = row / lengths[0]
    column = column - (column @ row) * row
    return row, column / np.linalg.norm(column)


def grid_of_frames(header: Header, shape: tuple[int, ...], key: str) -> tuple[Geometry, NDArray[np.int_]]:
    """The regular grid of all frames' planes in the object's own frame of reference, and the plane of each frame.

    shape: rows and columns. Raises Refused ``region_unreadable``, naming the key.
    """
    frames, shared = functional_groups(header)
    positions = np.array([group_of(f, shared, "PlanePositionSequence").ImagePositionPatient for f in frames], float)
    axes = np.array([group_of(f, shared, "PlaneOrientationSequence").ImageOrientationPatient for f in frames], float)
    measures = group_of(frames[0], shared, "PixelMeasuresSequence")
    if np.abs(axes - axes[0]).max() > _OFF_AXIS:
        raise Refused("region_unreadable", f"{key}: the frames of the object are not parallel to one another.")
    row, column = image_axes(axes[0], key)
    normal = np.cross(row, column)
    along = positions @ normal
    order = np.argsort(along)
    stated = float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 0)
    stated = stated if np.isfinite(stated) else 0.0
    planes = _planes(along[order], stated)
    if planes is not None:
        planes[order] = planes.copy()
        geometry = _grid(positions, planes, (row, column, normal * stated), measures.PixelSpacing, shape, header)
        away = np.abs(positions - geometry.lps_of(np.outer(planes, (1, 0, 0)))).max()
        if away <= max(_OFF_GRID * geometry.spacing_mm.min(), 0.01):
            return geometry, planes
    raise Refused("region_unreadable", f"{key}: the planes of the object are not evenly spaced.")


def _grid(
    positions: NDArray[np.float64],
    planes: NDArray[np.int_],
    axes: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    spacing_mm: Sequence[float],
    shape: tuple[int, ...],
    header: Header,
) -> Geometry:
    """axes: along a row, down a column, and the step from plane to plane where there is only one."""
    row, column, step = axes
    first, last = positions[planes.argmin()], positions[planes.argmax()]
    steps = int(planes.max())
    matrix = np.eye(4)
    matrix[:3, 0] = (last - first) / steps if steps else step
    matrix[:3, 1] = column * float(spacing_mm[0])
    matrix[:3, 2] = row * float(spacing_mm[1])
    matrix[:3, 3] = first
    return Geometry((steps + 1, shape[0], shape[1]), matrix, header.text("FrameOfReferenceUID"))


def _planes(along: NDArray[np.float64], stated: float) -> NDArray[np.int_] | None:
    """The plane number of each position (ascending), counted in the stated spacing or else in the least gap; None where
    the gaps are no multiples of either.
    """
    gaps = np.diff(along)
    apart = gaps[gaps > 0.01]
    if not len(apart):
        return np.zeros(len(along), int) if stated > 0 else None
    for spacing in (stated, float(apart.min())):
        if spacing <= 0 or apart.min() < 0.5 * spacing:
            continue
        steps = np.round(gaps / spacing)
        if np.abs(gaps - steps * spacing).max() < 0.1 * spacing:
            return np.concatenate([[0], np.cumsum(steps)]).astype(int)
    return None
