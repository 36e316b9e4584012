"""The slow shading of MR images, taken off before gray values are compared."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pipeline.itk import image_from
from pipeline.volume import Volume

#: The shading is smooth over a hand's breadth, so this is fine enough. All three are this project's own choice, checked
#: in docs/decisions/0044-shading-of-mr-is-taken-off-first.md.
_STEP_MM = 8.0
#: Fraction of the bright signal below which there is air.
_BODY = 0.1
_ITERATIONS = (40, 40, 20)


def evened(volume: Volume) -> Volume:
    """An MR volume without its slow shading, float32; every other volume as it is.

    N4 (Tustison et al., IEEE TMI 2010;29:1310-1320, doi:10.1109/TMI.2010.2046908) on voxels of about 8 mm. Shading is
    smooth in space and so tells mutual information where a point lies, which the other image seems to confirm.
    """
    if volume.quantity != "mr_signal":
        return volume
    factors = np.maximum(1, np.round(_STEP_MM / volume.geometry.spacing_mm)).astype(int)
    image = sitk.Cast(image_from(volume), sitk.sitkFloat32)
    small = sitk.Shrink(image, [int(f) for f in factors[::-1]])
    bright = float(np.percentile(sitk.GetArrayViewFromImage(small), 99))
    body = sitk.Cast(small > _BODY * bright, sitk.sitkUInt8)
    if bright <= 0 or not sitk.GetArrayViewFromImage(body).any():
        return volume
    method = sitk.N4BiasFieldCorrectionImageFilter()
    method.SetMaximumNumberOfIterations(list(_ITERATIONS))
    method.Execute(sitk.Maximum(small, 1e-3 * bright), body)
    field: NDArray[np.float32] = np.exp(sitk.GetArrayFromImage(method.GetLogBiasFieldAsImage(image)))
    return Volume((volume.voxels / field).astype(np.float32), volume.geometry, volume.quantity)
