"""SEG objects of every kind, written by highdicom, against the ellipsoid that was drawn in them."""

from __future__ import annotations

import highdicom as hd
import numpy as np
import pytest
from highdicom.sr.coding import CodedConcept
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from scipy.spatial.transform import Rotation

from dicom_node.decode.files import quiet
from dicom_node.decode.region_ref import RegionRef
from dicom_node.refusal import Refused
from pipeline.geometry import Geometry

CENTER = np.array([5.0, -3.0, 50.0])
RADII = np.array([7.0, 9.0, 11.0])
TISSUE = CodedConcept("85756007", "SCT", "Tissue")
SHAPE = (20, 24, 24)


def segment(number=1):
    return RegionRef("lesions[0].tumor", sop_instance_uid="1.2.3.4.5", segment_number=number)


def ellipsoid(points, radii=RADII):
    return (((points - CENTER) / radii) ** 2).sum(-1) <= 1


def own_grid(turn, spacing, shape):
    """lps_from_index of a grid around CENTER whose k, j, i run along the columns of a rotation's matrix."""
    matrix = np.eye(4)
    matrix[:3, :3] = turn.as_matrix() * spacing
    matrix[:3, 3] = CENTER - matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    return matrix


def points_of(matrix, shape):
    index = np.stack(np.mgrid[: shape[0], : shape[1], : shape[2]], -1)
    return index @ matrix[:3, :3].T + matrix[:3, 3]


@pytest.fixture
def write(kit, tmp_path):
    """A SEG by highdicom. pixels: as it wants them; matrix: lps_from_index of the frames, else the baseline's."""
    series = kit.Series(np.zeros(SHAPE, np.int16), tags=dict.fromkeys(("PatientName", "PatientSex", "StudyID"), ""))
    series.tags.update(PatientBirthDate="", StudyTime="", AccessionNumber="", ReferringPhysicianName="")
    images = series.images()
    for image in images:
        kit.save(image, tmp_path / "source")

    def writer(pixels, kind, *, matrix=None, syntax=ExplicitVRLittleEndian, segments=1, **options):
        if matrix is not None:
            column, row = matrix[:3, 1], matrix[:3, 2]
            step = matrix[:3, 0]
            spacing = [float(np.linalg.norm(v)) for v in (column, row)]
            options |= {
                "plane_orientation": hd.PlaneOrientationSequence(
                    hd.CoordinateSystemNames.PATIENT,
                    [*(row / np.linalg.norm(row)), *(column / np.linalg.norm(column))],
                ),
                "pixel_measures": hd.PixelMeasuresSequence(spacing, float(np.linalg.norm(step))),
                "plane_positions": [
                    hd.PlanePositionSequence(hd.CoordinateSystemNames.PATIENT, (matrix[:3, 3] + k * step).tolist())
                    for k in range(len(pixels))
                ],
            }
        descriptions = [
            hd.seg.SegmentDescription(n, f"S{n}", TISSUE, TISSUE, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
            for n in range(1, segments + 1)
        ]
        with quiet():
            return hd.seg.Segmentation(
                images,
                pixels,
                kind,
                descriptions,
                "1.2.3.9",
                1,
                "1.2.3.4.5",
                1,
                "M",
                "M",
                "1",
                "1",
                transfer_syntax_uid=syntax,
                content_creator_name="A^B",
                **options,
            )

    return writer


BASELINE = np.array([[0, 0, 1.25, -10], [0, 1.5, 0, -20], [2, 0, 0, 30], [0, 0, 0, 1.0]])
DRAWN = ellipsoid(points_of(BASELINE, SHAPE))
FRACTIONAL = hd.seg.SegmentationTypeValues.FRACTIONAL


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda s: s.name)
@pytest.mark.parametrize("kind", ["PROBABILITY", "OCCUPANCY"])
def test_fractions(write, read, syntax, kind):
    """A smooth fraction that is one half where the ellipsoid ends."""
    depth = np.sqrt((((points_of(BASELINE, SHAPE) - CENTER) / RADII) ** 2).sum(-1))
    fraction = np.clip(0.5 + 2.0 * (1 - depth), 0, 1)
    dataset = write(fraction, FRACTIONAL, syntax=syntax, fractional_type=kind, max_fractional_value=200)
    assert np.array_equal(read(segment(), dataset, syntax=syntax).voxels, DRAWN)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda s: s.name)
def test_a_label_map(write, read, syntax):
    labels = np.where(DRAWN, 2, np.where(points_of(BASELINE, SHAPE)[..., 2] > 50, 1, 0)).astype(np.uint8)
    dataset = write(labels, hd.seg.SegmentationTypeValues.LABELMAP, syntax=syntax, segments=2)
    assert np.array_equal(read(segment(2), dataset, syntax=syntax).voxels, DRAWN)
    assert np.array_equal(read(segment(1), dataset, syntax=syntax).voxels, labels == 1)


def test_segments_that_overlap(write, read):
    smaller = ellipsoid(points_of(BASELINE, SHAPE), RADII / 2)
    both = np.stack([DRAWN, smaller], -1).astype(np.uint8)
    dataset = write(both, hd.seg.SegmentationTypeValues.BINARY, segments=2)
    assert np.array_equal(read(segment(1), dataset).voxels, DRAWN)
    assert np.array_equal(read(segment(2), dataset).voxels, smaller)


@pytest.mark.parametrize("size", [(9, 35, 39), (7, 42, 47), (3, 95, 106)], ids=str)
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless], ids=lambda s: s.name
)
def test_segments_cropped_to_frames_that_fill_no_whole_bytes(write, read, kit, size, syntax):
    matrix = BASELINE.copy()
    matrix[:3, 3] += 30.0
    drawn = np.random.default_rng(size[0]).random((*size, 3)) < 0.5
    dataset = write(
        drawn.astype(np.uint8), hd.seg.SegmentationTypeValues.BINARY, matrix=matrix, syntax=syntax, segments=3
    )
    grid = Geometry(size, matrix, kit.frame)
    for number in (1, 2, 3):
        mask = read(segment(number), dataset, grid=grid, syntax=syntax)
        assert np.array_equal(mask.voxels, drawn[..., number - 1])


def shuffled(dataset, seed):
    """The same object with its frames in another order; uncompressed."""
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    order = np.random.default_rng(seed).permutation(len(frames))
    planes = hd.seg.Segmentation.from_dataset(dataset).pixel_array.astype(np.uint8)[order]
    dataset.PerFrameFunctionalGroupsSequence = [frames[n] for n in order]
    stored = np.packbits(planes.ravel(), bitorder="little") if dataset.BitsAllocated == 1 else planes
    dataset.PixelData = stored.tobytes() + b"\0" * (stored.size % 2)
    return dataset


@pytest.mark.parametrize("seed", [0, 1])
def test_frames_in_any_order(write, read, seed):
    dataset = shuffled(write(DRAWN.astype(np.uint8), hd.seg.SegmentationTypeValues.BINARY), seed)
    assert np.array_equal(read(segment(), dataset).voxels, DRAWN)


@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_frames_in_any_order_of_segments_that_overlap_and_of_fractions(write, read, kind, seed):
    """Frames of three segments mixed, two of them on the same planes and one inside the other."""
    points = points_of(BASELINE, SHAPE)
    inner, below = ellipsoid(points, RADII / 2), points[..., 2] < 40
    drawn = np.stack([DRAWN, inner, below], -1)
    if kind == "BINARY":
        dataset = write(drawn.astype(np.uint8), hd.seg.SegmentationTypeValues.BINARY, segments=3)
    else:
        sure = np.random.default_rng(seed).uniform(0.02, 0.48, drawn.shape)  # on its side of one half, no more
        fraction = np.where(drawn, 1 - sure, sure)
        dataset = write(fraction, FRACTIONAL, segments=3, fractional_type="PROBABILITY")
    dataset = shuffled(dataset, seed)
    numbers = [
        f.SegmentIdentificationSequence[0].ReferencedSegmentNumber for f in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert numbers != sorted(numbers)
    grid = Geometry(SHAPE, BASELINE, "1.2.3.77")
    for number, region in enumerate((DRAWN, inner, below), 1):
        assert np.array_equal(read(segment(number), dataset, grid=grid).voxels, region)


OTHER_GRIDS = {
    "finer": (Rotation.identity(), (0.8, 0.7, 0.7), (34, 34, 34)),
    "coarser": (Rotation.identity(), (3.0, 2.0, 2.0), (12, 14, 14)),
    "sagittal": (Rotation.from_euler("xy", [90, 90], degrees=True), (2.0, 1.0, 1.0), (14, 26, 26)),
    "rotated": (Rotation.from_rotvec([0.3, -0.5, 0.4]), (1.5, 1.0, 1.0), (20, 30, 30)),
}
#: Grids above run along x, y, z; an axial one has k along z.
_TO_KJI = Rotation.from_matrix(np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) @ np.diag([-1, 1, 1]))


@pytest.mark.parametrize("grid", OTHER_GRIDS.values(), ids=OTHER_GRIDS.keys())
def test_another_grid_than_the_baselines(write, read, grid):
    turn, spacing, shape = grid
    matrix = own_grid(turn * _TO_KJI, np.array(spacing), shape)
    drawn = ellipsoid(points_of(matrix, shape))
    mask = read(segment(), write(drawn.astype(np.uint8), hd.seg.SegmentationTypeValues.BINARY, matrix=matrix))
    assert mask.volume_ml == pytest.approx(drawn.sum() * np.prod(spacing) / 1000)
    assert mask.volume_ml == pytest.approx(4 / 3 * np.pi * RADII.prod() / 1000, rel=0.03)
    truth = ellipsoid(mask.geometry.grid_lps())
    assert np.array_equal(truth, mask.voxels)
    assert mask.centroid_lps_mm == pytest.approx(CENTER, abs=0.05)


def test_frames_that_are_not_parallel_or_off_the_line_are_refused(kit, read):
    series = kit.Series(np.zeros(SHAPE, np.int16))
    aside = kit.segmentation(series, {1: DRAWN})
    frame = aside.PerFrameFunctionalGroupsSequence[2]
    frame.PlanePositionSequence[0].ImagePositionPatient[0] += 3.0
    turned = kit.segmentation(series, {1: DRAWN})
    turned.PerFrameFunctionalGroupsSequence[2].PlaneOrientationSequence = [
        kit.item(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    ]
    ref = RegionRef("lesions[0].tumor", sop_instance_uid=kit.uid_of("MADE-1", "plan"), segment_number=1)
    for dataset, text in ((aside, "not evenly spaced"), (turned, "not parallel to one another")):
        with pytest.raises(Refused, match=text) as refused:
            read(ref, dataset)
        assert refused.value.code == "region_unreadable"
