"""Regions of a plan against what was drawn: SEG, RTSTRUCT, NIfTI."""

from __future__ import annotations

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset
from scipy.spatial.transform import Rotation

from dicom_node.decode.files import quiet, read_header, scan
from dicom_node.decode.nifti_image import read_nifti
from dicom_node.decode.region_ref import RegionRef, Threshold
from dicom_node.decode.regions import RegionSource, check_region, read_region
from dicom_node.decode.series import read_series
from dicom_node.refusal import Refused
from pipeline.geometry import Geometry

SHAPE = (20, 24, 24)


def ball(center=(9, 12, 11), radius=4.0):
    index = np.stack(np.mgrid[:20, :24, :24], -1)
    return np.linalg.norm((index - center) * (2.0, 1.5, 1.25), axis=-1) <= radius


def refused(call, *args, **kwargs):
    with pytest.raises(Refused) as problem:
        call(*args, **kwargs)
    assert problem.value.text.startswith("lesions[0].tumor")
    assert problem.value.text.endswith(".")
    return problem.value.code


def segment(kit, number=1):
    return RegionRef("lesions[0].tumor", sop_instance_uid=kit.uid_of("MADE-1", "plan"), segment_number=number)


def test_a_segment_lies_on_the_baseline_grid(kit, read, baseline):
    series = kit.Series(np.zeros(SHAPE, np.int16))
    split = ball((4, 8, 8)) | ball((14, 15, 15))  # empty planes between the two
    dataset = kit.segmentation(series, {1: ball(), 2: split})
    assert np.array_equal(read(segment(kit), dataset).voxels, ball())
    mask = read(segment(kit, 2), dataset)
    assert np.array_equal(mask.voxels, split)
    assert mask.geometry.same_grid(baseline)


def test_fractions_count_from_one_half(kit, read):
    series = kit.Series(np.zeros(SHAPE, np.int16))
    dataset = kit.segmentation(series, {1: ball()})
    planes = [k for k in reversed(range(20)) if ball()[k].any()]
    fraction = np.stack([np.where(ball()[k], 128, 127) for k in planes]).astype(np.uint8)
    dataset.SegmentationType, dataset.MaximumFractionalValue = "FRACTIONAL", 255
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset["PixelData"].value = fraction.tobytes()
    assert np.array_equal(read(segment(kit), dataset).voxels, ball())


def test_a_label_map(kit, read):
    series = kit.Series(np.zeros(SHAPE, np.int16))
    dataset = kit.segmentation(series, {1: np.ones(SHAPE, bool)})
    labels = np.stack([np.where(ball()[k], 2, 1) for k in reversed(range(20))]).astype(np.uint8)
    dataset.SegmentationType, dataset.SOPClassUID = "LABELMAP", "1.2.840.10008.5.1.4.1.1.66.7"
    item = Dataset()
    item.SegmentNumber = 2
    dataset.SegmentSequence = [*dataset.SegmentSequence, item]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.SegmentIdentificationSequence
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset["PixelData"].value = labels.tobytes()
    assert np.array_equal(read(segment(kit, 2), dataset).voxels, ball())


def test_a_segment_on_a_finer_grid_keeps_it_with_room_around(kit, read):
    fine = kit.Series(
        np.zeros((30, 40, 40), np.int16), step_mm=(0, 0, 1.0), spacing_mm=(0.7, 0.7), origin_mm=(-8, -15, 35)
    )
    drawn = np.zeros((30, 40, 40), bool)
    drawn[10:20, 5:30, 8:33] = True
    mask = read(segment(kit), kit.segmentation(fine, {1: drawn}))
    assert mask.volume_ml == pytest.approx(drawn.sum() * 0.49 / 1000)
    index = np.argwhere(drawn).mean(0)
    assert mask.centroid_lps_mm == pytest.approx([-8 + index[2] * 0.7, -15 + index[1] * 0.7, 35 + index[0]])
    edge = np.argwhere(mask.voxels)
    assert (edge.min(0) * mask.geometry.spacing_mm).min() >= 40
    assert ((np.array(mask.geometry.shape) - 1 - edge.max(0)) * mask.geometry.spacing_mm).min() >= 40


def test_a_segment_drawn_by_highdicom_in_the_dev_plans(shared):
    folder = shared / "cases" / "dev1"
    grid = read_series(scan([folder / "baseline"]).headers).acquisitions[0].geometry
    (header,) = scan([folder / "plan"]).headers
    ref = RegionRef("tumor", sop_instance_uid=header.text("SOPInstanceUID"), segment_number=1)
    mask = read_region(ref, RegionSource(folder / "plan", "DEV-0001", {ref.sop_instance_uid: header}), grid)
    with quiet():
        oracle = hd.seg.segread(header.path).get_volume(
            segment_numbers=[1], combine_segments=False, allow_missing_positions=True
        )
    part = np.argwhere(np.asarray(oracle.array)[..., 0] > 0)
    points = np.array([oracle.map_indices_to_reference(part[n : n + 1])[0] for n in range(0, len(part), 50)])
    assert len(part) == mask.voxels.sum()
    index = np.round(mask.geometry.index_of(points)).astype(int)
    assert mask.voxels[tuple(index.T)].all()


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"FrameOfReferenceUID": "1.2.3.99"}, "region_wrong_frame"), ({"PatientID": "OTHER"}, "patient_mismatch")],
)
def test_a_segment_that_does_not_belong(kit, read, changes, code):
    dataset = kit.segmentation(kit.Series(np.zeros(SHAPE, np.int16)), {1: ball()}, **changes)
    assert refused(read, segment(kit), dataset) == code


def test_what_a_segment_may_lack(kit, read):
    series = kit.Series(np.zeros(SHAPE, np.int16))
    dataset = kit.segmentation(series, {1: ball()})
    assert refused(read, segment(kit, 7), dataset) == "region_missing"
    assert refused(read, RegionRef("lesions[0].tumor", sop_instance_uid="1.2.3", segment_number=1)) == "region_missing"
    roi = RegionRef("lesions[0].tumor", sop_instance_uid=segment(kit).sop_instance_uid, roi_number=1)
    assert refused(read, roi) == "region_unreadable"
    del dataset.PerFrameFunctionalGroupsSequence
    assert refused(read, segment(kit), dataset) == "region_unreadable"


def test_an_empty_segment(kit, read):
    dataset = kit.segmentation(kit.Series(np.zeros(SHAPE, np.int16)), {1: ball()})
    dataset["PixelData"].value = bytes(len(dataset.PixelData))
    assert refused(read, segment(kit), dataset) == "empty_region"


def circle(z, radius, center=(4.0, -4.0)):
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    return np.stack([center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle), np.full(90, z)], -1)


def inside(baseline, z_range, radius, hole=0.0):
    points = baseline.grid_lps()
    distance = np.hypot(points[..., 0] - 4, points[..., 1] + 4)
    return (distance < radius) & (distance >= hole) & (points[..., 2] > z_range[0]) & (points[..., 2] < z_range[1])


def test_contours_on_the_slices_with_a_hole(kit, read, baseline):
    contours = [circle(30 + 2 * k, radius) for k in range(5, 10) for radius in (8.0, 4.0)]
    mask = read(kit.roi(), kit.structures(contours))
    expected = inside(baseline, (39, 49), 8.0, hole=4.0)
    assert (mask.voxels ^ expected).sum() <= 0.02 * expected.sum()


@pytest.mark.parametrize("step", [1.0, 4.0, 3.0])
def test_contours_between_and_sparser_than_the_slices(kit, read, baseline, step):
    """A cone: the radius between two contours is known."""
    heights = np.arange(38.5, 60, step)
    mask = read(kit.roi(), kit.structures([circle(z, 4 + 0.3 * (z - 38.5)) for z in heights]))
    points = baseline.grid_lps()
    distance = np.hypot(points[..., 0] - 4, points[..., 1] + 4)
    height = points[..., 2]
    within = (height >= heights[0]) & (height <= heights[-1])
    expected = (distance < 4 + 0.3 * (height - 38.5)) & within
    differs = (mask.voxels ^ expected) & within
    assert differs.sum() <= 0.12 * expected.sum()
    assert not mask.voxels[(height < heights[0] - step) | (height > heights[-1] + step)].any()


def test_rois_that_cannot_be_used(kit, read):
    good = [circle(40.0, 6.0)]
    assert refused(read, kit.roi(9), kit.structures(good)) == "region_missing"
    assert refused(read, kit.roi(), kit.structures(good, frame="1.2.9")) == "region_wrong_frame"
    assert refused(read, kit.roi(), kit.structures([])) == "empty_region"


@pytest.mark.parametrize(("kind", "mask_name"), [("CT", "CT_mask.nii.gz"), ("MR_T1", "MR_T1_mask.nii.gz")])
def test_the_published_masks_of_a_real_contour(shared, kind, mask_name):
    """IBSI publishes the voxel mask of each RTSTRUCT."""
    folder = shared / "real" / "soft_tissue_STS_005"
    grid = read_series(scan([folder / kind / "image"]).headers).acquisitions[0].geometry
    (header,) = scan([folder / kind / "mask"]).headers
    number = int(header.dataset.StructureSetROISequence[0].ROINumber)
    ref = RegionRef("tumor", sop_instance_uid=header.text("SOPInstanceUID"), roi_number=number)
    mask = read_region(ref, RegionSource(folder, "STS_005", {ref.sop_instance_uid: header}), grid)
    values, published = read_nifti(folder / mask_name, grid.frame_uid, "published")
    index = np.round(grid.index_of(published.lps_of(np.argwhere(values > 0)))).astype(int)
    oracle = np.zeros(grid.shape, bool)
    oracle[tuple(index.T)] = True
    dice = 2 * (oracle & mask.voxels).sum() / (oracle.sum() + mask.voxels.sum())
    assert dice > 0.99


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL"])
def test_nifti_in_any_orientation(kit, read, baseline, tmp_path, orientation):
    (tmp_path / "plan").mkdir()
    affine = np.diag([-1.0, -1, 1, 1]) @ baseline.lps_from_index[:, [2, 1, 0, 3]]
    image = nib.Nifti1Image(ball().T.astype(np.uint8), affine)
    start = nib.io_orientation(image.affine)
    turned = image.as_reoriented(nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(orientation)))
    nib.save(turned, tmp_path / "plan" / "tumor.nii.gz")
    mask = read(RegionRef("lesions[0].tumor", path="tumor.nii.gz"))
    assert mask.geometry.frame_uid == kit.frame
    index = np.round(baseline.index_of(mask.points_lps_mm())).astype(int)
    found = np.zeros(SHAPE, bool)
    found[tuple(index.T)] = True
    assert np.array_equal(found, ball())


def save_nifti(values, lps_from_index, path):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(values.T, np.diag([-1.0, -1, 1, 1]) @ lps_from_index[:, [2, 1, 0, 3]]), path)


@pytest.mark.parametrize("turn", [(0, 0, 0), (0.3, -0.5, 0.4)], ids=["upright", "rotated"])
@pytest.mark.parametrize("spacing", [0.8, 2.5])
def test_nifti_on_a_grid_of_its_own(read, tmp_path, turn, spacing):
    """A ball on a finer or coarser grid, along the axes or across them."""
    center, radius = np.array([4.0, -4.0, 50.0]), 9.0
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(turn).as_matrix() * spacing
    size = int(30 / spacing)
    matrix[:3, 3] = center - matrix[:3, :3] @ np.full(3, (size - 1) / 2)
    index = np.stack(np.mgrid[:size, :size, :size], -1)
    drawn = np.linalg.norm(index @ matrix[:3, :3].T + matrix[:3, 3] - center, axis=-1) <= radius
    save_nifti(drawn.astype(np.float32), matrix, tmp_path / "plan" / "ball.nii.gz")
    mask = read(RegionRef("lesions[0].tumor", path="ball.nii.gz"))
    assert mask.volume_ml == pytest.approx(drawn.sum() * spacing**3 / 1000)
    assert mask.volume_ml == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.03 if spacing < 1 else 0.1)
    assert mask.centroid_lps_mm == pytest.approx(center, abs=0.01)
    assert np.linalg.norm(mask.points_lps_mm() - center, axis=1).max() <= radius + 1e-3


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_one_label_of_a_nifti_label_map(read, baseline, tmp_path, kind):
    labels = np.zeros(SHAPE, kind)
    labels[ball(radius=9)] = 1
    labels[ball()] = 2
    save_nifti(labels, baseline.lps_from_index, tmp_path / "plan" / "labels.nii.gz")

    def label(number):
        return RegionRef("lesions[0].tumor", path="labels.nii.gz", label=number)

    assert np.array_equal(read(label(2)).voxels, ball())
    assert np.array_equal(read(label(1)).voxels, ball(radius=9) & ~ball())
    with pytest.raises(Refused, match=r"tumor\.path: labels\.nii\.gz is no mask: it holds 0, 1, 2; .* or label with"):
        read(label(None))
    for key in ("organ_mask", "vessel_mask"):  # a liver beside its tumor is one organ
        assert np.array_equal(read(RegionRef(key, path="labels.nii.gz")).voxels, ball(radius=9))
    with pytest.raises(Refused, match=r"tumor\.label 3 is not in labels\.nii\.gz; it has 1, 2\.") as refusal:
        read(label(3))
    assert refusal.value.code == "region_missing"


MASKS = {
    "bytes": lambda drawn: drawn.astype(np.uint8),
    "0 and 255": lambda drawn: np.where(drawn, 255, 0).astype(np.uint8),
    "0 and one other number": lambda drawn: np.where(drawn, 2.7, 0),
    "one label": lambda drawn: np.where(drawn, 7, 0).astype(np.int16),
    "fractions": lambda drawn: np.where(drawn, 0.5, 0.49),
    "nothing known around": lambda drawn: np.where(drawn, 1, np.nan),
    "nothing known around a label": lambda drawn: np.where(drawn, 7, np.nan),
    "0 and 255 by a scale factor": lambda drawn: np.where(drawn, 254.99998, 0),
    "0 and a number of many digits": lambda drawn: np.where(drawn, 2.71828, 1e-9),
    "rounded": lambda drawn: np.where(drawn, 1.0002, -0.0002),
}


@pytest.mark.parametrize("kind", MASKS.values(), ids=MASKS.keys())
def test_what_counts_as_a_nifti_mask(read, baseline, tmp_path, kind):
    save_nifti(kind(ball()), baseline.lps_from_index, tmp_path / "plan" / "tumor.nii.gz")
    assert np.array_equal(read(RegionRef("lesions[0].tumor", path="tumor.nii.gz")).voxels, ball())


NO_MASKS = {
    "cold": (lambda depth: np.clip(37 - 20 * depth, -150, 37), "it holds more than 16 values, from -123 to 37;"),
    "heat": (lambda depth: np.clip(37 + 5 * depth, 37, 95), "it holds more than 16 values, from 37 to 77;"),
    "whole degrees": (lambda depth: np.round(37 + 5 * depth).astype(np.int16), "more than 16 values, from 37 to"),
    "CT": (lambda depth: np.round(100 * depth).astype(np.int16) - 1000, "more than 16 values, from -1000 to"),
    "two of them below zero": (lambda depth: np.where(depth > 4, -40.0, 37.0), "it holds -40, 37;"),
    "a resampled 0 and 255": (lambda depth: np.clip(60 * depth, 0, 255), "more than 16 values, from 0 to 255;"),
    "resampled labels": (lambda depth: np.select([depth > 4, depth > 3], [2, 1.5], 0), "it holds 0, 1.5, 2;"),
    "past one": (lambda depth: np.where(depth > 4, 1.08, -0.07), "it holds -0.07, 1.08;"),
    "endless": (lambda depth: np.where(depth > 4, np.inf, 0), "it holds 0, inf;"),
}


@pytest.mark.parametrize(("kind", "text"), NO_MASKS.values(), ids=NO_MASKS.keys())
def test_a_map_of_values_is_no_mask(read, baseline, tmp_path, kind, text):
    """depth: 0 outside the ball, rising to 8 in its middle; with holes that are not known where NaN can say so."""
    offset = (np.stack(np.mgrid[:20, :24, :24], -1) - (9, 12, 11)) * (2.0, 1.5, 1.25)
    values = kind(np.clip(8 - np.linalg.norm(offset, axis=-1), 0, None))
    if values.dtype.kind == "f":
        values[:2] = np.nan
    save_nifti(values, baseline.lps_from_index, tmp_path / "plan" / "map.nii.gz")
    region = RegionRef("lesions[0].tumor", path="map.nii.gz")
    source = RegionSource(tmp_path / "plan", "MADE-1", {})
    for refuse in (read, lambda ref: check_region(ref, source)):
        with pytest.raises(Refused) as refusal:
            refuse(region)
        assert refusal.value.code == "region_unreadable"
        assert refusal.value.text.startswith("lesions[0].tumor.path: map.nii.gz is no mask: ")
        assert text in refusal.value.text
        assert "at_most_c or at_least_c with a temperature map in °C" in refusal.value.text


def test_a_mask_is_no_temperature_map(read, baseline, tmp_path):
    save_nifti(ball().astype(np.uint8), baseline.lps_from_index, tmp_path / "plan" / "tumor.nii.gz")
    region = RegionRef("lesions[0].tumor", path="tumor.nii.gz", threshold=Threshold("at_most_c", 0.0))
    with pytest.raises(
        Refused, match=r"tumor\.path: tumor\.nii\.gz is a mask, no temperature map; leave at_most_c out"
    ):
        read(region)


def test_nothing_but_what_is_not_known_is_an_empty_region(read, baseline, tmp_path):
    save_nifti(np.full(SHAPE, np.nan), baseline.lps_from_index, tmp_path / "plan" / "tumor.nii.gz")
    assert refused(read, RegionRef("lesions[0].tumor", path="tumor.nii.gz")) == "empty_region"


def test_nifti_that_cannot_be_used(read, tmp_path):
    plan = tmp_path / "plan"
    plan.mkdir()
    (plan / "bad.nii.gz").write_bytes(b"no image")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.uint8), np.eye(4)), plan / "many.nii")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), plan / "empty.nii")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "outside.nii")
    codes = {
        name: refused(read, RegionRef("lesions[0].tumor", path=name))
        for name in ("bad.nii.gz", "many.nii", "empty.nii", "gone.nii", "../outside.nii", ".", str(plan / "empty.nii"))
    }
    assert codes == {
        "bad.nii.gz": "region_unreadable",
        "many.nii": "region_unreadable",
        "empty.nii": "empty_region",
        "gone.nii": "region_missing",
        "../outside.nii": "region_missing",
        ".": "region_unreadable",
        str(plan / "empty.nii"): "region_missing",
    }
    with pytest.raises(Refused, match=r"tumor.path: \. is a folder; name a NIfTI file\."):
        read(RegionRef("lesions[0].tumor", path="."))


def test_a_region_on_tilted_slices_is_put_on_the_upright_grid(kit, read, tmp_path):
    column = (0.0, float(np.cos(0.3)), float(-np.sin(0.3)))
    tilted = kit.Series(np.zeros((16, 24, 24), np.int16), axes=(1, 0, 0, *column))
    kit.write(tilted.images(), tmp_path / "tilted")
    grid: Geometry = read_series(scan([tmp_path / "tilted"]).headers).acquisitions[0].geometry
    drawn = np.zeros((16, 24, 24), bool)
    drawn[5:11, 8:16, 8:16] = True
    mask = read(segment(kit), kit.segmentation(tilted, {1: drawn}), grid=grid)
    index = np.argwhere(drawn)
    points = (
        np.array(tilted.origin_mm)
        + index[:, :1] * np.array(tilted.step_mm)
        + index[:, 1:2] * 1.5 * np.array(column)
        + index[:, 2:] * 1.25 * np.array([1.0, 0, 0])
    )
    assert mask.geometry.same_grid(grid)
    assert mask.centroid_lps_mm == pytest.approx(points.mean(0), abs=0.3)
    sheared_ml = len(index) * 2.0 * np.cos(0.3) * 1.5 * 1.25 / 1000
    assert mask.volume_ml == pytest.approx(sheared_ml, rel=0.1)


def thread():
    out = np.zeros((16, 24, 24), bool)
    out[7:10, 12, 12] = True
    return out


@pytest.mark.parametrize(
    ("drawn", "origin_mm"),
    [(np.ones((16, 24, 24), bool), (400.0, 400.0, 400.0)), (thread(), (-10.0, -20.0, 30.0))],
    ids=["outside", "thinner than a voxel"],
)
def test_a_tilted_region_of_which_nothing_is_left_on_the_baseline_is_refused(kit, read, baseline, drawn, origin_mm):
    column = (0.0, float(np.cos(0.3)), float(-np.sin(0.3)))
    tilted = kit.Series(np.zeros((16, 24, 24), np.int16), axes=(1, 0, 0, *column), origin_mm=origin_mm)
    coarse = baseline.resampled((8.0, 8.0, 8.0))
    assert refused(read, segment(kit), kit.segmentation(tilted, {1: drawn}), grid=coarse) == "empty_region"


def test_header_of_a_region_is_read_without_its_pixels(kit, tmp_path):
    path = kit.save(kit.segmentation(kit.Series(np.zeros(SHAPE, np.int16)), {1: ball()}), tmp_path / "seg")
    assert "PixelData" not in read_header(path).dataset
