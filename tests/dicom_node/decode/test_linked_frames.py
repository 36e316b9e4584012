"""Regions in another frame of reference, carried to the baseline's by a Spatial Registration: a known motion."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import Dataset
from scipy.spatial.transform import Rotation

from dicom_node.decode.case import read_case
from dicom_node.decode.region_ref import RegionRef, Threshold
from dicom_node.refusal import Refused
from pipeline.geometry import upright_grid

OTHER = "1.2.3.88"
THIRD = "1.2.3.99"
CENTER = np.array([5.0, -3.0, 50.0])
RADII = np.array([7.0, 9.0, 11.0])
#: From the region's frame to the baseline's: a rotation by 23 degrees and a shift.
TRUE = np.eye(4)
TRUE[:3, :3] = Rotation.from_rotvec(np.radians(23) * np.array([0.48, -0.6, 0.64])).as_matrix()
TRUE[:3, 3] = CENTER - TRUE[:3, :3] @ (CENTER + np.array([30.0, -12.0, 18.0]))
ONE = np.eye(4)


def moved(matrix, points):
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def shift(x, y, z):
    out = np.eye(4)
    out[:3, 3] = x, y, z
    return out


def ellipsoid(points):
    """In the baseline's frame."""
    return (((points - CENTER) / RADII) ** 2).sum(-1) <= 1


def drawn(shape=(30, 36, 36), spacing=(1.0, 0.8, 0.8)):
    """The ellipsoid on an upright grid of the other frame."""
    middle = moved(np.linalg.inv(TRUE), CENTER)
    first = middle - (np.array(shape) - 1)[::-1] * np.array(spacing)[::-1] / 2
    geometry = upright_grid(shape, spacing, first, OTHER)
    return geometry, ellipsoid(moved(TRUE, geometry.grid_lps()))


def seg(kit):
    geometry, voxels = drawn()
    series = kit.Series(
        np.zeros(voxels.shape, np.int16),
        step_mm=(0, 0, 1.0),
        spacing_mm=(0.8, 0.8),
        origin_mm=tuple(geometry.lps_of((0, 0, 0))),
    )
    dataset = kit.segmentation(series, {1: voxels}, FrameOfReferenceUID=OTHER)
    return RegionRef("lesions[0].tumor", sop_instance_uid=dataset.SOPInstanceUID, segment_number=1), dataset


def rtstruct(kit):
    """Contours on upright slices of the other frame: ellipses where those planes cut the turned ellipsoid."""
    contours = []
    inverse = np.linalg.inv(TRUE)
    middle = moved(inverse, CENTER)
    shape = TRUE[:3, :3].T @ np.diag(1 / RADII**2) @ TRUE[:3, :3]
    for height in np.arange(-10.5, 11, 1.0):
        # (p + h)' S (p + h) = 1 with p in the plane
        across, along, rest = shape[:2, :2], shape[:2, 2] * height, shape[2, 2] * height**2
        inner = -np.linalg.solve(across, along)
        size = 1 - rest - inner @ along
        if size > 0:
            angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
            root = np.linalg.inv(np.linalg.cholesky(across)).T
            flat = inner + np.sqrt(size) * np.stack([np.cos(angle), np.sin(angle)], -1) @ root.T
            contours.append(middle + np.column_stack([flat, np.full(90, height)]))
    return kit.roi(), kit.structures(contours, frame=OTHER)


def dose(_kit):
    geometry, _ = drawn((20, 22, 22), (2.0, 1.8, 1.8))
    depth = np.sqrt((((moved(TRUE, geometry.grid_lps()) - CENTER) / RADII) ** 2).sum(-1))
    out = Dataset()
    out.SOPClassUID, out.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.2", "1.2.7"
    out.StudyInstanceUID, out.SeriesInstanceUID, out.PatientID, out.Modality = "1.2.71", "1.2.72", "MADE-1", "RTDOSE"
    out.FrameOfReferenceUID = OTHER
    out.ImagePositionPatient, out.ImageOrientationPatient = geometry.lps_of((0, 0, 0)).tolist(), [1, 0, 0, 0, 1, 0]
    out.PixelSpacing, out.GridFrameOffsetVector = [1.8, 1.8], (np.arange(20) * 2.0).tolist()
    out.NumberOfFrames, out.Rows, out.Columns = depth.shape
    out.SamplesPerPixel, out.PhotometricInterpretation, out.PixelRepresentation = 1, "MONOCHROME2", 1
    out.BitsAllocated, out.BitsStored, out.HighBit, out.DoseGridScaling = 16, 16, 15, 0.01
    out.add_new("PixelData", "OW", np.round((-20 + (depth - 1) * 60) * 100).astype("i2").tobytes())
    return RegionRef("lesions[0].tumor", sop_instance_uid="1.2.7", threshold=Threshold("at_most_c", -20.0)), out


def parametric_map(kit):
    """As `dose`, in kelvin and with one frame a plane."""
    geometry, _ = drawn((20, 22, 22), (2.0, 1.8, 1.8))
    depth = np.sqrt((((moved(TRUE, geometry.grid_lps()) - CENTER) / RADII) ** 2).sum(-1))
    out = Dataset()
    out.SOPClassUID, out.SOPInstanceUID, out.FrameOfReferenceUID = "1.2.840.10008.5.1.4.1.1.30", "1.2.8", OTHER
    out.StudyInstanceUID, out.SeriesInstanceUID, out.PatientID, out.Modality = "1.2.81", "1.2.82", "MADE-1", "MR"
    unit = kit.item(CodeValue="K", CodingSchemeDesignator="UCUM", CodeMeaning="Kelvin")
    mapping = kit.item(RealWorldValueSlope=1.0, RealWorldValueIntercept=0.0, MeasurementUnitsCodeSequence=[unit])
    measures = kit.item(PixelSpacing=[1.8, 1.8], SliceThickness=2.0, SpacingBetweenSlices=2.0)
    out.SharedFunctionalGroupsSequence = [
        kit.item(
            PlaneOrientationSequence=[kit.item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[measures],
            RealWorldValueMappingSequence=[mapping],
        )
    ]
    out.PerFrameFunctionalGroupsSequence = [
        kit.item(PlanePositionSequence=[kit.item(ImagePositionPatient=geometry.lps_of((k, 0, 0)).tolist())])
        for k in range(20)
    ]
    out.NumberOfFrames, out.Rows, out.Columns = depth.shape
    out.SamplesPerPixel, out.PhotometricInterpretation, out.BitsAllocated = 1, "MONOCHROME2", 32
    out.FloatPixelData = (253.15 + (depth - 1) * 60).astype("f4").tobytes()
    return RegionRef("lesions[0].tumor", sop_instance_uid="1.2.8", threshold=Threshold("at_most_c", -20.0)), out


KINDS = {"SEG": seg, "RTSTRUCT": rtstruct, "RTDOSE": dose, "PM": parametric_map}


@pytest.fixture
def fine(kit):
    return upright_grid((60, 60, 60), (1.0, 1.0, 1.0), CENTER - 29.5, kit.frame)


def links(kit):
    """Ways to say that TRUE carries the other frame to the baseline's."""
    to_third = shift(3, 2, 1)
    half = TRUE @ np.linalg.inv(shift(1, 5, 9))
    return {
        "in the baseline's frame": kit.registration(kit.frame, {kit.frame: [ONE], OTHER: [TRUE]}),
        "the other item alone": kit.registration(kit.frame, {OTHER: [TRUE]}),
        "in the region's frame": kit.registration(OTHER, {kit.frame: [np.linalg.inv(TRUE)], OTHER: []}),
        "in a third frame": kit.registration(THIRD, {OTHER: [to_third @ TRUE], kit.frame: [to_third]}),
        "in two steps": kit.registration(kit.frame, {OTHER: [shift(1, 5, 9), half]}),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["in the baseline's frame", "in a third frame"])
def test_each_kind_of_region_is_carried_over(kit, read, fine, kind, way):
    ref, dataset = KINDS[kind](kit)
    mask = read(ref, dataset, links(kit)[way], grid=fine)
    assert mask.geometry.frame_uid == kit.frame
    assert mask.volume_ml == pytest.approx(4 / 3 * np.pi * RADII.prod() / 1000, rel=0.03)
    assert mask.centroid_lps_mm == pytest.approx(CENTER, abs=0.2)
    truth = ellipsoid(mask.geometry.grid_lps())
    assert 2 * (truth & mask.voxels).sum() / (truth.sum() + mask.voxels.sum()) > 0.97


@pytest.mark.parametrize("way", ["the other item alone", "in the region's frame", "in two steps"])
def test_each_way_to_link_is_the_same(kit, read, fine, way):
    ref, dataset = seg(kit)
    mask = read(ref, dataset, links(kit)[way], grid=fine)
    assert np.array_equal(mask.voxels, ellipsoid(mask.geometry.grid_lps()))


def test_an_affine_link(kit, read, fine):
    """Skewed and stretched: the volume grows by the determinant."""
    skewed = TRUE.copy()
    skewed[:3, :3] = np.array([[1.1, 0.1, 0], [0, 0.95, 0], [0.05, 0, 1.0]]) @ TRUE[:3, :3]
    skewed[:3, 3] = CENTER - skewed[:3, :3] @ moved(np.linalg.inv(TRUE), CENTER)
    ref, dataset = seg(kit)
    mask = read(ref, dataset, kit.registration(kit.frame, {OTHER: [skewed]}, kind="AFFINE"), grid=fine)
    volume_mm3 = np.linalg.det(skewed[:3, :3]) * 4 / 3 * np.pi * RADII.prod()
    assert mask.volume_ml == pytest.approx(volume_mm3 / 1000, rel=0.03)
    assert mask.centroid_lps_mm == pytest.approx(CENTER, abs=0.2)


def refused(read, *args, **kwargs):
    with pytest.raises(Refused) as problem:
        read(*args, **kwargs)
    assert problem.value.text.startswith("lesions[0].tumor")
    assert problem.value.text.endswith(".")
    return problem.value.code, problem.value.text


def test_without_a_link(kit, read):
    ref, dataset = seg(kit)
    stranger = kit.registration(kit.frame, {THIRD: [ONE]})
    code, text = refused(read, ref, dataset, stranger)
    assert code == "region_wrong_frame"
    assert "a Spatial Registration object in the plan's folder would link them" in text


WRONG = {
    "flattens": np.diag([1.0, 1, 0, 1]),
    "mirrors": np.diag([-1.0, 1, 1, 1]),
    "last row": np.vstack([np.eye(4)[:3], [0, 0, 0.1, 1]]),
    "transposed": TRUE.T,
}


@pytest.mark.parametrize("matrix", WRONG.values(), ids=WRONG.keys())
def test_a_matrix_that_cannot_be_used(kit, read, matrix):
    ref, dataset = seg(kit)
    code, text = refused(read, ref, dataset, kit.registration(kit.frame, {OTHER: [matrix]}, kind="AFFINE"))
    assert code == "link_unusable"
    assert "has a matrix" in text


def test_a_matrix_of_another_kind_or_with_holes(kit, read):
    ref, dataset = seg(kit)
    code, text = refused(read, ref, dataset, kit.registration(kit.frame, {OTHER: [TRUE]}, kind="BSPLINE"))
    assert (code, "of type BSPLINE" in text) == ("link_unusable", True)
    short = kit.registration(kit.frame, {OTHER: [TRUE]})
    sequence = short.RegistrationSequence[0].MatrixRegistrationSequence[0].MatrixSequence
    sequence[0].FrameOfReferenceTransformationMatrix = [1, 0, 0]
    assert "not 16 numbers" in refused(read, ref, dataset, short)[1]
    del sequence[0].FrameOfReferenceTransformationMatrix
    assert refused(read, ref, dataset, short)[0] == "link_unusable"


def shrunk():
    out = TRUE.copy()
    out[:3, :3] *= 0.995
    return out


def sheared():
    out = TRUE.copy()
    out[:3, 0] += 0.01 * out[:3, 1]
    return out


@pytest.mark.parametrize("matrix", [shrunk(), sheared()], ids=["scale", "shear"])
def test_what_scales_or_shears_is_not_rigid(kit, read, fine, matrix):
    ref, dataset = seg(kit)
    code, text = refused(read, ref, dataset, kit.registration(kit.frame, {OTHER: [matrix]}))
    assert code == "link_unusable"
    assert "object plan/object 1, which" in text
    assert "has a matrix of type RIGID that scales or shears; export it again with a rotation and a shift" in text
    read(ref, dataset, kit.registration(kit.frame, {OTHER: [matrix]}, kind="AFFINE"), grid=fine)


def test_a_rotation_rounded_to_three_decimals_is_rigid(kit, read, fine):
    ref, dataset = seg(kit)
    rounded = np.round(TRUE, 3)
    rounded[:3, 3] = CENTER - rounded[:3, :3] @ moved(np.linalg.inv(TRUE), CENTER)
    mask = read(ref, dataset, kit.registration(kit.frame, {OTHER: [rounded]}), grid=fine)
    assert mask.centroid_lps_mm == pytest.approx(CENTER, abs=0.2)


def test_two_links_that_agree_and_two_that_do_not(kit, read, fine):
    ref, dataset = seg(kit)
    first = kit.registration(kit.frame, {OTHER: [TRUE]}, name="a")
    near = kit.registration(kit.frame, {OTHER: [shift(0.05, 0, 0) @ TRUE]}, name="b")
    assert not read(ref, dataset, first, near, grid=fine).is_empty
    far = kit.registration(kit.frame, {OTHER: [shift(0.2, 0, 0) @ TRUE]}, name="b")
    code, text = refused(read, ref, dataset, first, far)
    assert code == "links_disagree"
    assert "different places" in text


def test_a_deformable_link_is_refused_as_such(kit, read):
    ref, dataset = seg(kit)
    deformable = kit.registration(kit.frame, {})
    deformable.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.3"
    del deformable.RegistrationSequence
    deformable.DeformableRegistrationSequence = [kit.item(SourceFrameOfReferenceUID=OTHER)]
    code, text = refused(read, ref, dataset, deformable)
    assert code == "link_unusable"
    assert "deformable registration" in text


def test_the_case_says_that_a_region_was_carried_over(kit, made_case):
    """A plan whose tumor was drawn 30 mm aside in another frame; the result is where it was, and a note says so."""
    plain = read_case(made_case.plan, baseline=[made_case.baseline], followup=[made_case.followup], previous=[])
    tumor = plain.case.plan.lesions[0].tumor
    aside = kit.Series(np.zeros((20, 24, 24), np.int16), origin_mm=(20.0, -20.0, 30.0))
    dataset = kit.segmentation(aside, {1: tumor.voxels}, FrameOfReferenceUID=OTHER)
    kit.save(dataset, made_case.plan.parent / "seg")
    link = kit.registration(kit.frame, {OTHER: [shift(-30, 0, 0)]})
    kit.save(link, made_case.plan.parent / "reg")
    study = read_case(made_case.plan, baseline=[made_case.baseline], followup=[made_case.followup], previous=[])
    carried = study.case.plan.lesions[0].tumor
    assert carried.geometry.same_grid(tumor.geometry)
    assert np.array_equal(carried.voxels, tumor.voxels)
    (note,) = (note for note in study.notes if note.code == "region_carried_over")
    assert "lesions[0].tumor" in note.text
    assert note.code not in {n.code for n in plain.notes}
    stranger = kit.registration(kit.frame, {OTHER: [shift(-30, 0, 0)]})
    stranger.PatientID = "OTHER"
    kit.save(stranger, made_case.plan.parent / "reg")
    with pytest.raises(Refused, match="would link them"):
        read_case(made_case.plan, baseline=[made_case.baseline], followup=[made_case.followup], previous=[])
