"""The peers of the registration benchmark, given the same images, masks and rigid start."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from registration_pairs import Map, Pair

from pipeline.geometry import FloatArray
from pipeline.itk import image_from
from pipeline.sampling import Box, window_of
from pipeline.transform import Transform
from pipeline.volume import Volume
from pipeline.where import Where


def _itk_inputs(work: Pair) -> tuple[sitk.Image, sitk.Image, sitk.Image, sitk.Image]:
    """Fixed and moving image and mask; the moving ones lie where the rigid start puts them."""
    back = np.linalg.inv(work.start.matrix)
    fixed, moving = (_windowed(v) for v in (work.followup, work.baseline))
    fixed_mask = _mask_like(fixed, work.where, work.start, followup=True)
    moving_mask = _mask_like(moving, work.where, work.start, followup=False)
    _keep_box(fixed_mask, work.where.box)
    for image in (moving, moving_mask):
        turn = back[:3, :3] @ np.array(image.GetDirection()).reshape(3, 3)
        image.SetOrigin((back[:3, :3] @ np.array(image.GetOrigin()) + back[:3, 3]).tolist())
        image.SetDirection(turn.ravel().tolist())
    return fixed, moving, fixed_mask, moving_mask


def _windowed(volume: Volume) -> sitk.Image:
    """The image cut to the gray values of soft tissue, as we cut it: of 32 bins over all HU the liver has one."""
    window = window_of(volume)
    return sitk.Clamp(sitk.Cast(image_from(volume), sitk.sitkFloat32), sitk.sitkFloat32, window.low, window.high)


def _mask_like(image: sitk.Image, where: Where, start: Transform, *, followup: bool) -> sitk.Image:
    assert where.organ_moving is not None  # every made patient has one
    organ, tumor, zone = (image_from(m) for m in (where.organ_moving, where.cut_moving, where.cut_fixed))
    to_baseline, from_baseline = sitk.AffineTransform(3), sitk.AffineTransform(3)
    for transform, matrix in ((to_baseline, start.matrix), (from_baseline, np.linalg.inv(start.matrix))):
        transform.SetMatrix(matrix[:3, :3].ravel().tolist())
        transform.SetTranslation(matrix[:3, 3].tolist())
    same = sitk.Transform(3, sitk.sitkIdentity)
    of_baseline, of_followup = (to_baseline, same) if followup else (same, from_baseline)
    out = sitk.Resample(organ, image, of_baseline, sitk.sitkNearestNeighbor)
    out = out * (1 - sitk.Resample(tumor, image, of_baseline, sitk.sitkNearestNeighbor))
    if followup:
        out = out * (1 - sitk.Resample(zone, image, of_followup, sitk.sitkNearestNeighbor))
    return sitk.Cast(out, sitk.sitkUInt8)


def _keep_box(mask: sitk.Image, box: Box) -> None:
    """Clears what lies outside the box in which our own cost looks."""
    size = mask.GetSize()
    corners = np.array([mask.TransformPhysicalPointToContinuousIndex(c.tolist()) for c in box.corners()])
    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    for axis in range(3):
        outside = [slice(None)] * 3
        for part in (slice(0, max(int(low[axis]), 0)), slice(min(int(high[axis]) + 1, size[axis]), size[axis])):
            outside[axis] = part
            if part.start < part.stop:
                mask[tuple(outside)] = 0


def _mapped(work: Pair, points_in_start_frame: FloatArray) -> FloatArray:
    """The peers map to the moved baseline; the rigid start leads on to the baseline itself."""
    return np.asarray(points_in_start_frame @ work.start.matrix[:3, :3].T + work.start.matrix[:3, 3])


def elastix(work: Pair) -> Map:
    """itk-elastix with its own default rigid and B-spline parameter maps."""
    import itk

    fixed, moving, fixed_mask, moving_mask = _itk_inputs(work)
    parameters = itk.ParameterObject.New()
    for kind in ("rigid", "bspline"):
        chosen = parameters.GetDefaultParameterMap(kind)
        chosen["ErodeMask"] = ["false"]
        parameters.AddParameterMap(chosen)
    images = [_to_itk(x) for x in (fixed, moving, fixed_mask, moving_mask)]
    _, found = itk.elastix_registration_method(
        images[0],
        images[1],
        fixed_mask=images[2],
        moving_mask=images[3],
        parameter_object=parameters,
        log_to_console=False,
    )

    def mapped(points: FloatArray) -> FloatArray:
        with tempfile.TemporaryDirectory() as name:
            listed = Path(name) / "points.txt"
            lines = [" ".join(f"{x:.6f}" for x in p) for p in points]
            listed.write_text("\n".join(["point", str(len(points)), *lines]))
            mover = itk.TransformixFilter.New(_to_itk(moving))
            mover.SetTransformParameterObject(found)
            mover.SetFixedPointSetFileName(str(listed))
            mover.SetOutputDirectory(name)
            mover.Update()
            text = (Path(name) / "outputpoints.txt").read_text().splitlines()
        out = [[float(x) for x in line.split("OutputPoint = [")[1].split("]")[0].split()] for line in text]
        return _mapped(work, np.array(out))

    return mapped


def _to_itk(image: sitk.Image) -> Any:
    import itk

    array = sitk.GetArrayFromImage(image)
    out = itk.image_from_array(np.ascontiguousarray(array))
    out.SetOrigin(image.GetOrigin())
    out.SetSpacing(image.GetSpacing())
    out.SetDirection(itk.matrix_from_array(np.array(image.GetDirection()).reshape(3, 3)))
    return out


def simpleitk(work: Pair) -> Map:
    """SimpleITK's B-spline registration in its usual form: Mattes information, line search, three resolutions."""
    fixed, moving, fixed_mask, moving_mask = _itk_inputs(work)
    spans = [n * s for n, s in zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)]
    start = sitk.BSplineTransformInitializer(fixed, [max(1, round(span / 60.0)) for span in spans])
    engine = sitk.ImageRegistrationMethod()
    engine.SetMetricAsMattesMutualInformation(50)
    engine.SetMetricSamplingStrategy(engine.RANDOM)
    engine.SetMetricSamplingPercentage(0.02, 1)
    engine.SetMetricFixedMask(fixed_mask)
    engine.SetMetricMovingMask(moving_mask)
    engine.SetInterpolator(sitk.sitkLinear)
    engine.SetOptimizerAsGradientDescentLineSearch(5.0, 100, convergenceMinimumValue=1e-4, convergenceWindowSize=5)
    engine.SetInitialTransformAsBSpline(start, inPlace=True, scaleFactors=[1, 2, 4])
    engine.SetShrinkFactorsPerLevel([4, 2, 1])
    engine.SetSmoothingSigmasPerLevel([4, 2, 1])
    found = engine.Execute(sitk.Cast(fixed, sitk.sitkFloat32), sitk.Cast(moving, sitk.sitkFloat32))
    return lambda points: _mapped(work, np.array([found.TransformPoint(p.tolist()) for p in points]))
