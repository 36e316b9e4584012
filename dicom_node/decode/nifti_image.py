"""A NIfTI image to voxels and their grid in LPS, and to a mask."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from dicom_node.nifti import lps_from_index
from dicom_node.refusal import Refused
from pipeline.geometry import Geometry

#: More than parts that are drawn for one region; a map of whole degrees that reaches an ablation has more values.
_MOST_LABELS = 16
#: What an image's scale factor may do to a whole number.
_ROUNDING = 1e-3
_INSTEAD = "give a mask of 0 and 1, at_most_c or at_least_c with a temperature map in °C, or label with a label map"


def read_nifti(path: Path, frame_uid: str, key: str) -> tuple[NDArray[Any], Geometry]:
    """A NIfTI image's values ``[k, j, i]`` and its grid in LPS. Raises Refused ``region_unreadable``, naming `key`."""
    try:
        image: Any = nib.load(path)
        values = np.asanyarray(image.dataobj)
        placed = int(image.header["sform_code"]) > 0 or int(image.header["qform_code"]) > 0
    except (ImageFileError, OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as problem:
        raise Refused("region_unreadable", f"{key}: {path.name} is no readable NIfTI image.") from problem
    if values.ndim > 3 and max(values.shape[3:]) == 1:
        values = values.reshape(values.shape[:3])
    if values.ndim != 3 or not placed:
        raise Refused("region_unreadable", f"{key}: {path.name} is no three-dimensional image with a position.")
    voxels = np.ascontiguousarray(values.T)
    shape = (voxels.shape[0], voxels.shape[1], voxels.shape[2])
    try:
        return voxels, Geometry(shape, lps_from_index(image.affine), frame_uid)
    except ValueError as problem:
        raise Refused("region_unreadable", f"{key}: {path.name} lies on no regular grid ({problem}).") from problem


def is_in_mask(values: NDArray[Any], name: str, *, joins_labels: bool) -> NDArray[np.bool_]:
    """Where a mask is one half or more, in the shape of `values`; NaN is outside.

    A mask holds values from 0 to 1 (fractions too, as after resampling), or 0 or NaN and one greater value.
    joins_labels: also a few whole numbers of at least 0, the labels of a label map, are taken together. name: key and
    file, for the refusal. Raises Refused ``region_unreadable`` for anything else: a label map of which one is meant, an
    image, a temperature map.
    """
    # fmin and fmax pass NaN over.
    least, most = (float(end.reduce(values, axis=None)) for end in (np.fmin, np.fmax))
    if least < -_ROUNDING or most > 1 + _ROUNDING:
        found = _few_values(values)
        ends = {*(found or ()), *([0.0] if np.isnan(values).any() else [])}
        is_two = len(ends) == 2 and min(ends) == 0 and np.isfinite(most)
        is_labels = joins_labels and found is not None and found[0] >= 0 and all(value.is_integer() for value in found)
        if not is_two and not is_labels:
            raise Refused("region_unreadable", f"{name} is no mask: {_told(found, least, most)}; {_INSTEAD}.")
    return np.asarray(values >= 0.5)


def _few_values(values: NDArray[Any]) -> list[float] | None:
    """The different values in rising order, NaN left out; None where there are more than labels of one map."""
    found: set[float] = set()
    for plane in values:
        rounded = np.round(plane[~np.isnan(plane)].astype(float), 3)
        found.update(np.unique(rounded).tolist())
        if len(found) > _MOST_LABELS + 1:
            return None
    return sorted(found)


def _told(found: list[float] | None, least: float, most: float) -> str:
    if found is None:
        return f"it holds more than {_MOST_LABELS} values, from {least:g} to {most:g}"
    return f"it holds {', '.join(f'{value:g}' for value in found)}"
