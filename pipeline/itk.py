"""The one place where axes are reversed: numpy ``[k, j, i]`` to SimpleITK ``(i, j, k)`` and back."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from pipeline.geometry import Geometry
from pipeline.volume import Mask, Volume


def image_from(source: Volume | Mask) -> sitk.Image:
    """A SimpleITK image (float32 for a volume, uint8 for a mask) on the same grid in LPS."""
    dtype = np.uint8 if isinstance(source, Mask) else np.float32
    image = sitk.GetImageFromArray(np.ascontiguousarray(source.voxels, dtype=dtype))
    return placed(image, source.geometry)


def placed(image: sitk.Image, geometry: Geometry) -> sitk.Image:
    """The image itself, with origin, spacing and direction of the geometry."""
    matrix = geometry.lps_from_index
    spacing = geometry.spacing_mm[::-1]
    image.SetOrigin(matrix[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix[:3, 2::-1] / spacing).ravel().tolist())
    return image


def geometry_of(image: sitk.Image, frame_uid: str) -> Geometry:
    """The grid of a SimpleITK image; the frame is not stored in one, so it is given."""
    direction = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    matrix = np.eye(4)
    matrix[:3, :3] = direction[:, ::-1]
    matrix[:3, 3] = image.GetOrigin()
    i, j, k = image.GetSize()
    return Geometry((k, j, i), matrix, frame_uid)
