"""A NIfTI image to voxels and their grid in LPS."""

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
