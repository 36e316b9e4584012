"""Volumes and masks: valid, read-only, and only ever combined on one grid."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.geometry import Geometry, GeometryMismatch
from pipeline.itk import geometry_of, image_from
from pipeline.volume import Mask, Volume


def grid(frame: str = "1.2.3", shift: float = 0.0) -> Geometry:
    matrix = np.zeros((4, 4))
    matrix[[2, 1, 0], [0, 1, 2]] = (3.0, 2.0, 1.0)
    matrix[:, 3] = (shift, 5, 7, 1)
    return Geometry((4, 5, 6), matrix, frame)


def mask(*inside: tuple[int, int, int], geometry: Geometry | None = None) -> Mask:
    voxels = np.zeros((4, 5, 6), bool)
    for index in inside:
        voxels[index] = True
    return Mask(voxels, geometry or grid())


def test_slices_of_one_value_count_where_they_lie_between_others() -> None:
    voxels = np.arange(10 * 4 * 4, dtype=np.int16).reshape(10, 4, 4)
    voxels[[0, 4, 5, 9]] = 7
    volume = Volume(voxels, Geometry(voxels.shape, np.eye(4), "1.2"), "ct_hu")
    assert volume.blank_slices == 2
    assert Volume(np.zeros_like(voxels), volume.geometry, "ct_hu").blank_slices == 0


def test_masks_combine_like_sets() -> None:
    a, b = mask((0, 0, 0), (1, 1, 1)), mask((1, 1, 1), (2, 2, 2))
    assert np.argwhere((a & b).voxels).tolist() == [[1, 1, 1]]
    assert (a | b).voxels.sum() == 3
    assert np.argwhere((a - b).voxels).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("other", [grid("1.2.4"), grid(shift=0.1)])
def test_masks_of_other_grids_do_not_combine(other: Geometry) -> None:
    for operation in ("__and__", "__or__", "__sub__"):
        with pytest.raises(GeometryMismatch):
            getattr(mask((0, 0, 0)), operation)(mask((0, 0, 0), geometry=other))


def test_volume_centroid_and_points_are_in_space() -> None:
    two = mask((1, 2, 3), (3, 2, 3))
    assert two.volume_ml == pytest.approx(2 * 6 / 1000)
    assert two.centroid_lps_mm.tolist() == [3, 5 + 4, 7 + 6]
    assert two.points_lps_mm().shape == (2, 3)


def test_an_empty_mask_says_so() -> None:
    assert mask().is_empty
    assert mask().volume_ml == 0
    with pytest.raises(ValueError, match="empty"):
        _ = mask().centroid_lps_mm


def test_a_crop_goes_back_where_it_came_from() -> None:
    whole = mask((1, 2, 3), (2, 3, 4))
    part = whole.crop((slice(1, 4), slice(1, 5), slice(2, 6)))
    assert part.voxels.shape == (3, 4, 4)
    assert np.array_equal(part.embedded_in(whole.geometry).voxels, whole.voxels)
    with pytest.raises(GeometryMismatch):
        part.embedded_in(grid(shift=0.3))


def test_voxels_fit_their_grid_and_cannot_be_written() -> None:
    with pytest.raises(GeometryMismatch):
        Volume(np.zeros((4, 5, 7), np.int16), grid(), "ct_hu")
    volume = Volume(np.zeros((4, 5, 6), np.int16), grid(), "ct_hu")
    with pytest.raises(ValueError, match="read-only"):
        volume.voxels[0, 0, 0] = 1


def test_an_image_for_itk_has_each_voxel_in_the_same_place() -> None:
    values = np.random.default_rng(1).normal(size=(4, 5, 6)).astype(np.float32)
    geometry = grid()
    image = image_from(Volume(values, geometry, "ct_hu"))
    assert image.GetSize() == (6, 5, 4)
    for index in ((0, 0, 0), (3, 1, 5), (2, 4, 0)):
        assert image[index[::-1]] == pytest.approx(values[index])
        assert image.TransformIndexToPhysicalPoint(index[::-1]) == pytest.approx(geometry.lps_of(index))
    assert geometry_of(image, "1.2.3").same_grid(geometry)


def test_a_mask_for_itk_is_a_label_image() -> None:
    image = image_from(mask((1, 2, 3)))
    assert image.GetPixelID() == sitk.sitkUInt8
    assert image[3, 2, 1] == 1
