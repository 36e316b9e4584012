"""Maps between frames of reference, and resampling through them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from pipeline.geometry import FloatArray, FrameMismatch, Geometry, frozen
from pipeline.itk import geometry_of, placed
from pipeline.volume import Mask, Volume


@dataclass(frozen=True, eq=False)
class SplineField:
    """A cubic B-spline displacement. coefficients_mm: (3, k, j, i), LPS components; grid: the control points.

    Zero outside the control points' inner domain (one spacing inside the outer ones), as in ITK.
    """

    coefficients_mm: FloatArray
    grid: Geometry

    def __post_init__(self) -> None:
        if self.coefficients_mm.shape != (3, *self.grid.shape) or min(self.grid.shape) < 4:
            raise ValueError("a cubic spline needs (3, k, j, i) coefficients on at least 4 control points an axis")
        object.__setattr__(self, "coefficients_mm", frozen(self.coefficients_mm, np.float64))

    def displacement_mm(self, points_lps_mm: ArrayLike) -> FloatArray:
        """(..., 3) displacement at (..., 3) points."""
        index = self.grid.index_of(points_lps_mm)
        flat = index.reshape(-1, 3).T
        out = np.stack(
            [ndimage.map_coordinates(c, flat, order=3, prefilter=False, mode="nearest") for c in self.coefficients_mm],
            axis=-1,
        )
        inside = ((flat.T >= 1) & (flat.T <= np.array(self.grid.shape) - 2)).all(-1)
        out[~inside] = 0.0
        return np.asarray(out.reshape(index.shape))


@dataclass(frozen=True, eq=False)
class Transform:
    """Maps points of `from_frame_uid` to points of `to_frame_uid`: first the spline field, then the matrix.

    matrix: (4, 4) affine in LPS millimetres. Named by where it leads: ``baseline_from_followup``.
    """

    to_frame_uid: str
    from_frame_uid: str
    matrix: FloatArray
    field: SplineField | None = None

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
            raise ValueError("a transform needs a finite, invertible (4, 4) matrix")
        if self.field is not None and self.field.grid.frame_uid != self.from_frame_uid:
            raise FrameMismatch("the displacement field does not lie in the frame that the transform maps from")
        object.__setattr__(self, "matrix", frozen(matrix))

    def __call__(self, points_lps_mm: ArrayLike) -> FloatArray:
        """(..., 3) points of the target frame for (..., 3) points of the source frame."""
        points = np.asarray(points_lps_mm, float)
        if self.field is not None:
            points = points + self.field.displacement_mm(points)
        return np.asarray(points @ self.matrix[:3, :3].T + self.matrix[:3, 3])

    def __matmul__(self, other: Transform) -> Transform:
        """``a_from_b @ b_from_c``. Raises FrameMismatch; only an affine `a_from_b` keeps the form exact."""
        if self.from_frame_uid != other.to_frame_uid:
            raise FrameMismatch(f"cannot chain: {self.from_frame_uid} is not {other.to_frame_uid}")
        if self.field is not None:
            raise ValueError("only an affine transform can stand on the left of @")
        return Transform(self.to_frame_uid, other.from_frame_uid, self.matrix @ other.matrix, other.field)

    def inverse_points(self, points_lps_mm: ArrayLike, *, tolerance_mm: float = 1e-3) -> FloatArray:
        """(..., 3) source-frame points that map to the given target-frame points (fixed-point iteration)."""
        inverse = np.linalg.inv(self.matrix)
        target = np.asarray(points_lps_mm, float) @ inverse[:3, :3].T + inverse[:3, 3]
        if self.field is None:
            return np.asarray(target)
        flat = target.reshape(-1, 3)
        points = flat - self.field.displacement_mm(flat)
        todo = np.arange(len(flat))
        for _ in range(50):
            step = flat[todo] - (points[todo] + self.field.displacement_mm(points[todo]))
            points[todo] += step
            todo = todo[np.abs(step).max(1) >= tolerance_mm]
            if not len(todo):
                break
        return np.asarray(points.reshape(target.shape))

    def rigid_inverse(self) -> Transform:
        """The way back by the matrix alone, without the spline."""
        return Transform(self.from_frame_uid, self.to_frame_uid, np.asarray(np.linalg.inv(self.matrix)))

    def jacobian_determinants(self, points_lps_mm: ArrayLike, *, step_mm: float = 0.5) -> FloatArray:
        """(...,) determinant of the local derivative; at or below zero the map folds there."""
        points = np.asarray(points_lps_mm, float)
        columns = [(self(points + e) - self(points - e)) / (2 * step_mm) for e in np.eye(3) * step_mm]
        with np.errstate(invalid="ignore"):  # of what is no number, the determinant is none either
            return np.asarray(np.linalg.det(np.stack(columns, axis=-1)))


def itk_transform(transform: Transform) -> sitk.Transform:
    """The same map as an ITK transform (composite of affine and B-spline where there is a field)."""
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(transform.matrix[:3, :3].ravel().tolist())
    affine.SetTranslation(transform.matrix[:3, 3].tolist())
    if transform.field is None:
        return affine
    images = [
        placed(sitk.GetImageFromArray(np.ascontiguousarray(c, dtype=np.float64)), transform.field.grid)
        for c in transform.field.coefficients_mm
    ]
    # ITK applies the transform that was added last first.
    return sitk.CompositeTransform([affine, sitk.BSplineTransform(images, 3)])


def transform_from_itk(source: sitk.Transform, *, to_frame_uid: str, from_frame_uid: str) -> Transform:
    """Reads back what `itk_transform` made. Raises ValueError for any other kind of ITK transform."""
    if source.GetName() == "CompositeTransform":
        composite = sitk.CompositeTransform(source)
        parts = [composite.GetNthTransform(n) for n in range(composite.GetNumberOfTransforms())]
    else:
        parts = [source]
    if not 1 <= len(parts) <= 2 or parts[0].GetName() != "AffineTransform":
        raise ValueError("not a transform written by this software: expected an affine, then at most one B-spline")
    affine = parts[0].Downcast()
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(affine.GetMatrix()).reshape(3, 3)
    matrix[:3, 3] = affine.TransformPoint((0.0, 0.0, 0.0))
    field = None
    if len(parts) == 2:
        images = parts[1].Downcast().GetCoefficientImages()
        stacked = np.stack([sitk.GetArrayFromImage(image) for image in images])
        field = SplineField(stacked, geometry_of(images[0], from_frame_uid))
    return Transform(to_frame_uid, from_frame_uid, matrix, field)


def identity(frame_uid: str) -> Transform:
    """The map from a frame to itself."""
    return Transform(frame_uid, frame_uid, np.eye(4))


def resample(
    source: Volume, onto: Geometry, source_from_onto: Transform, *, outside: float = np.nan
) -> NDArray[np.float32]:
    """float32 ``[k, j, i]`` values of `source` on the grid `onto`; `outside` where the source has no data.

    The transform maps points of `onto` to points of `source`. Raises FrameMismatch when the frames do not fit.
    """
    _check_frames(source.geometry, onto, source_from_onto)
    out = np.empty(onto.shape, np.float32)
    for slab, part in _slabs(onto):
        out[slab] = sample(source, source_from_onto(part.grid_lps()), outside=outside)
    return out


def sample(source: Volume, points_lps_mm: FloatArray, *, outside: float = np.nan) -> NDArray[np.float32]:
    """float32 values at (..., 3) points of the source's frame; `outside` where it has no data."""
    index = np.moveaxis(source.geometry.index_of(points_lps_mm), -1, 0)
    out = ndimage.map_coordinates(source.voxels, index, output=np.float32, order=1, mode="constant", cval=outside)
    return np.asarray(out)


def resample_distance(source: Mask, onto: Geometry, source_from_onto: Transform) -> NDArray[np.float32]:
    """float32 ``[k, j, i]`` signed distance in mm to the region's edge on the grid `onto`, positive inside.

    Distances are those of the source frame; beyond 40 mm around the region the nearest value is continued.
    """
    _check_frames(source.geometry, onto, source_from_onto)
    out = np.empty(onto.shape, np.float32)
    for slab, part in _slabs(onto):
        out[slab] = sample_distance(source, source_from_onto(part.grid_lps()))
    return out


def grown(masks: Iterable[Mask], onto: Geometry, masks_from_onto: Transform, *, by_mm: float) -> Mask:
    """The union of regions, each grown by `by_mm` in its own frame, on the grid `onto`. Raises FrameMismatch."""
    out = np.zeros(onto.shape, bool)
    for mask in masks:
        out |= resample_distance(mask, onto, masks_from_onto) > -by_mm
    return Mask(out, onto)


def sample_distance(source: Mask, points_lps_mm: FloatArray) -> NDArray[np.float32]:
    """float32 signed distance in mm to the region's edge at (..., 3) points of its frame, positive inside."""
    distance, geometry = source.distance_nearby
    index = np.moveaxis(geometry.index_of(points_lps_mm), -1, 0)
    return np.asarray(ndimage.map_coordinates(distance, index, output=np.float32, order=1, mode="nearest"))


def _check_frames(source: Geometry, onto: Geometry, source_from_onto: Transform) -> None:
    if source_from_onto.to_frame_uid != source.frame_uid or source_from_onto.from_frame_uid != onto.frame_uid:
        raise FrameMismatch("the transform does not lead from the target grid's frame to the source's")


def _slabs(onto: Geometry) -> Iterator[tuple[slice, Geometry]]:
    """Slabs of whole slices, small enough that their float64 coordinates stay small."""
    step = max(1, 1_000_000 // max(1, onto.shape[1] * onto.shape[2]))
    for k in range(0, onto.shape[0], step):
        stop = min(k + step, onto.shape[0])
        yield slice(k, stop), onto.crop((k, 0, 0), (stop, *onto.shape[1:]))
