"""Temperature maps with a threshold, against the ellipsoid where a made temperature field crosses it."""

from __future__ import annotations

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from highdicom.sr.coding import CodedConcept
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage, RTDoseStorage

from dicom_node.decode.case import read_case
from dicom_node.decode.files import quiet, read_header, scan
from dicom_node.decode.plan import read_plan_file
from dicom_node.decode.region_ref import RegionRef, Threshold
from dicom_node.decode.series import read_series
from dicom_node.decode.temperature_map import read_temperature
from dicom_node.refusal import Refused
from pipeline.geometry import upright_grid

CENTER = np.array([5.0, -3.0, 50.0])
RADIUS_MM = 12.0
#: Millimetres of a map's voxels along z, y, x.
COARSE = (3.0, 2.5, 2.5)
SHAPE = (16, 18, 20)
AT_MOST = Threshold("at_most_c", -20.0)


def ref(threshold=AT_MOST, **where):
    return RegionRef("lesions[0].tumor", **(where or {"sop_instance_uid": "1.2.7"}), threshold=threshold)


def ice(points):
    """37 °C far away, -150 °C at the center, -20 °C at `RADIUS_MM`; linear in the radius from there outward."""
    distance = np.linalg.norm(points - CENTER, axis=-1)
    return np.clip(-20 + (distance - RADIUS_MM) * 9.0, -150, 37)


def grid(spacing=COARSE, shape=SHAPE, frame=""):
    first = CENTER - (np.array(shape) - 1)[::-1] * np.array(spacing)[::-1] / 2 + (0.4, -0.3, 0.7)
    return upright_grid(shape, spacing, first, frame)


def ball_ml(radius=RADIUS_MM):
    return 4 / 3 * np.pi * radius**3 / 1000


def dose(kit, values, geometry, *, bits=16, signed=True, scaling=0.01, offsets="relative", falling=False, **changes):
    """An RT Dose that holds °C. falling: planes from the top down."""
    out = Dataset()
    out.SOPClassUID, out.SOPInstanceUID, out.FrameOfReferenceUID = RTDoseStorage, "1.2.7", kit.frame
    out.StudyInstanceUID, out.SeriesInstanceUID, out.PatientID, out.Modality = "1.2.71", "1.2.72", "MADE-1", "RTDOSE"
    z = geometry.lps_of([[k, 0, 0] for k in range(len(values))])[:, 2]
    if falling:
        values, z = values[::-1], z[::-1]
    out.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    out.ImagePositionPatient = [*geometry.lps_of((0, 0, 0))[:2].tolist(), float(z[0])]
    out.PixelSpacing = geometry.spacing_mm[1:].tolist()
    out.GridFrameOffsetVector = (z if offsets == "absolute" else z - z[0]).tolist()
    stored = np.round(values / scaling)
    out.NumberOfFrames, out.Rows, out.Columns = values.shape
    out.SamplesPerPixel, out.PhotometricInterpretation, out.PixelRepresentation = 1, "MONOCHROME2", int(signed)
    out.BitsAllocated = out.BitsStored = bits
    out.HighBit, out.DoseGridScaling = bits - 1, scaling
    out.add_new("PixelData", "OW", stored.astype(f"{'i' if signed else 'u'}{bits // 8}").tobytes())
    for keyword, value in changes.items():
        setattr(out, keyword, value)
    return out


def parametric_map(kit, values, geometry, *, kind="f4", unit="Cel", slope=1.0, intercept=0.0, order=None):
    """A Parametric Map with one frame a plane; unit: empty leaves the real world value mapping out."""
    out = Dataset()
    out.SOPClassUID, out.SOPInstanceUID, out.FrameOfReferenceUID = ParametricMapStorage, "1.2.7", kit.frame
    out.StudyInstanceUID, out.SeriesInstanceUID, out.PatientID, out.Modality = "1.2.71", "1.2.72", "MADE-1", "MR"
    shared = Dataset()
    shared.PlaneOrientationSequence = [kit.item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    spacing = geometry.spacing_mm
    shared.PixelMeasuresSequence = [
        kit.item(PixelSpacing=spacing[1:].tolist(), SliceThickness=spacing[0], SpacingBetweenSlices=spacing[0])
    ]
    if unit:
        mapping = kit.item(RealWorldValueSlope=slope, RealWorldValueIntercept=intercept)
        mapping.MeasurementUnitsCodeSequence = [
            kit.item(CodeValue=unit, CodingSchemeDesignator="UCUM", CodeMeaning=unit)
        ]
        shared.RealWorldValueMappingSequence = [mapping]
    out.SharedFunctionalGroupsSequence = [shared]
    planes = list(range(len(values))) if order is None else order
    out.PerFrameFunctionalGroupsSequence = [
        kit.item(PlanePositionSequence=[kit.item(ImagePositionPatient=geometry.lps_of((k, 0, 0)).tolist())])
        for k in planes
    ]
    out.NumberOfFrames, (out.Rows, out.Columns) = len(planes), values.shape[1:]
    out.SamplesPerPixel, out.PhotometricInterpretation = 1, "MONOCHROME2"
    stored = ((values - intercept) / slope)[planes]
    out.BitsAllocated = 8 * np.dtype(kind).itemsize
    if kind == "u2":
        out.BitsStored, out.HighBit, out.PixelRepresentation = 16, 15, 0
        out.add_new("PixelData", "OW", np.round(stored).astype(kind).tobytes())
    elif kind == "f4":
        out.FloatPixelData = stored.astype(kind).tobytes()
    else:
        out.DoubleFloatPixelData = stored.astype(kind).tobytes()
    return out


@pytest.fixture
def fine(kit):
    return upright_grid((60, 60, 60), (1.0, 1.0, 1.0), CENTER - 29.5, kit.frame)


DOSES = [
    {},
    {"falling": True},
    {"offsets": "absolute"},
    {"offsets": "absolute", "falling": True},
    {"bits": 32, "scaling": 1e-4},
]


@pytest.mark.parametrize("form", DOSES, ids=str)
def test_a_coarse_dose_grid_is_no_staircase(kit, read, fine, form):
    """Between voxels of 3 mm the surface lies within a fraction of a millimetre of where the field crosses."""
    values = ice(grid().grid_lps())
    mask = read(ref(), dose(kit, values, grid(), **form), grid=fine)
    assert mask.volume_ml == pytest.approx(ball_ml(), rel=0.03)
    assert mask.centroid_lps_mm == pytest.approx(CENTER, abs=0.1)
    distance = np.linalg.norm(mask.geometry.grid_lps() - CENTER, axis=-1)
    half_voxel_and_a_bit = 0.5
    assert not mask.voxels[distance > RADIUS_MM + half_voxel_and_a_bit].any()
    assert mask.voxels[distance < RADIUS_MM - half_voxel_and_a_bit].all()


@pytest.mark.parametrize(("bits", "scaling"), [(16, 0.01), (32, 1e-4)])
def test_heat_in_unsigned_values(kit, read, fine, bits, scaling):
    points = grid().grid_lps()
    heat = np.clip(54 - (np.linalg.norm(points - CENTER, axis=-1) - RADIUS_MM) * 3.0, 0, 95)
    dataset = dose(kit, heat, grid(), bits=bits, signed=False, scaling=scaling)
    mask = read(ref(Threshold("at_least_c", 54.0)), dataset, grid=fine)
    assert mask.volume_ml == pytest.approx(ball_ml(), rel=0.03)


def test_planes_of_a_dose_that_are_unevenly_spaced(kit, read, fine):
    even = grid((2.0, 2.5, 2.5), (24, 18, 20))
    keep = [k for k in range(24) if k not in (3, 11, 12)]
    dataset = dose(kit, ice(even.grid_lps()), even)
    offsets = np.array(dataset.GridFrameOffsetVector, float)[keep]
    frames = np.frombuffer(dataset.PixelData, "i2").reshape(24, 18, 20)[keep]
    dataset.GridFrameOffsetVector, dataset.NumberOfFrames = offsets.tolist(), len(keep)
    dataset["PixelData"].value = frames.tobytes()
    mask = read(ref(), dataset, grid=fine)
    assert mask.volume_ml == pytest.approx(ball_ml(), rel=0.04)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("f4", {}),
        ("f8", {}),
        ("f4", {"unit": ""}),
        ("u2", {"slope": 0.01, "intercept": -200.0}),
        ("u2", {"slope": 0.01, "intercept": 0.0, "unit": "K"}),
        ("f4", {"unit": "K"}),
        ("f8", {"order": [5, 4, 3, 2, 1, 0, *range(15, 5, -1)]}),
    ],
    ids=str,
)
def test_a_parametric_map(kit, read, fine, kind, options):
    values = ice(grid().grid_lps()) + (273.15 if options.get("unit") == "K" else 0)
    mask = read(ref(), parametric_map(kit, values, grid(), kind=kind, **options), grid=fine)
    assert mask.volume_ml == pytest.approx(ball_ml(), rel=0.03)
    assert mask.centroid_lps_mm == pytest.approx(CENTER, abs=0.1)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint16])
def test_a_parametric_map_written_by_highdicom(kit, read, tmp_path, kind):
    """In kelvin; integers with a slope."""
    series = kit.Series(np.zeros((20, 24, 24), np.int16), tags=dict.fromkeys(("PatientName", "PatientSex"), ""))
    series.tags.update(dict.fromkeys(("StudyID", "PatientBirthDate", "StudyTime", "AccessionNumber"), ""))
    series.tags.update(ReferringPhysicianName="")
    images = series.images()
    for image in images:
        kit.save(image, tmp_path / "source")
    geometry = read_series(scan([tmp_path / "baseline"]).headers).acquisitions[0].geometry
    values = np.clip(-20 + (np.linalg.norm(geometry.grid_lps() - CENTER, axis=-1) - 8) * 9.0, -150, 37) + 273.15
    slope = 0.01 if kind == np.uint16 else 1.0
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="T",
        lut_explanation="temperature",
        unit=CodedConcept("K", "UCUM", "Kelvin"),
        value_range=(0, 65535) if kind == np.uint16 else (0.0, 1000.0),
        slope=slope,
        intercept=0,
    )
    stored = (np.round(values / slope) if kind == np.uint16 else values).astype(kind)
    with quiet():
        dataset = hd.pm.ParametricMap(
            images,
            stored,
            "1.2.3.9",
            1,
            "1.2.7",
            1,
            "M",
            "M",
            "1",
            "1",
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            window_center=300,
            window_width=100,
        )
    mask = read(ref(), dataset)
    assert mask.volume_ml == pytest.approx(ball_ml(8.0), rel=0.04)
    assert mask.centroid_lps_mm == pytest.approx(CENTER, abs=0.1)


def test_a_map_as_fine_as_the_baseline_stays_on_its_grid(kit, read, fine):
    values = ice(fine.grid_lps())
    mask = read(ref(), parametric_map(kit, values, fine), grid=fine)
    assert mask.geometry.same_grid(fine)
    assert np.array_equal(mask.voxels, values.astype(np.float32) <= -20)


def test_what_a_map_does_not_know_is_not_in_the_region(kit, read, fine):
    values = ice(grid().grid_lps())
    values[..., :10] = np.nan
    mask = read(ref(), parametric_map(kit, values, grid()), grid=fine)
    points, border_mm = mask.points_lps_mm(), grid().lps_of((0, 0, 9.5))[0]
    assert points[:, 0].min() >= border_mm - 0.01
    height = RADIUS_MM + (CENTER[0] - border_mm)
    assert mask.volume_ml == pytest.approx(np.pi * height**2 * (3 * RADIUS_MM - height) / 3 / 1000, rel=0.06)


@pytest.mark.parametrize(("side", "radius"), [("at_most_c", RADIUS_MM), ("at_least_c", RADIUS_MM)])
def test_a_nifti_map(read, fine, tmp_path, side, radius):
    geometry = grid()
    affine = np.diag([-1.0, -1, 1, 1]) @ geometry.lps_from_index[:, [2, 1, 0, 3]]
    sign = 1 if side == "at_most_c" else -1
    values = sign * ice(geometry.grid_lps())
    (tmp_path / "plan").mkdir()
    nib.save(nib.Nifti1Image(values.T.astype(np.float32), affine), tmp_path / "plan" / "t.nii.gz")
    mask = read(ref(Threshold(side, -20.0 * sign), path="t.nii.gz"), grid=fine)
    assert mask.volume_ml == pytest.approx(ball_ml(radius), rel=0.03)


def refused(read, *args, **kwargs):
    with pytest.raises(Refused) as problem:
        read(*args, **kwargs)
    assert problem.value.text.startswith("lesions[0].tumor")
    assert problem.value.text.endswith(".")
    return problem.value


def test_a_map_in_kelvin_without_a_unit_is_refused(kit, read, tmp_path):
    kelvin = np.clip(ice(grid().grid_lps()) + 273.15, 160, None)
    for dataset in (dose(kit, kelvin, grid()), parametric_map(kit, kelvin, grid(), unit="")):
        problem = refused(read, ref(), dataset)
        assert problem.code == "region_unreadable"
        assert "threshold and map must be in °C" in problem.text
    nib.save(nib.Nifti1Image(kelvin.astype(np.float32), np.eye(4)), tmp_path / "plan" / "k.nii")
    assert "threshold and map must be in °C" in refused(read, ref(path="k.nii")).text


def test_maps_that_cannot_be_used(kit, read):
    values = ice(grid().grid_lps())
    assert "the map is in Hz" in refused(read, ref(), parametric_map(kit, values, grid(), unit="Hz")).text
    assert "several maps" in refused(read, ref(), parametric_map(kit, values, grid(), order=[*range(16), 3])).text
    assert "no DoseGridScaling" in refused(read, ref(), dose(kit, values, grid(), DoseGridScaling=None)).text
    offsets = dose(kit, values, grid(), GridFrameOffsetVector=[0.0, 3.0])
    assert "where each of its planes lies" in refused(read, ref(), offsets).text
    seg = kit.segmentation(kit.Series(np.zeros((20, 24, 24), np.int16)), {1: np.ones((20, 24, 24), bool)})
    seg.SOPInstanceUID = "1.2.7"
    assert "at_most_c needs an RT Dose or a Parametric Map" in refused(read, ref(), seg).text
    nowhere = refused(read, ref(Threshold("at_most_c", -180.0)), dose(kit, values, grid()))
    assert nowhere.code == "empty_region"
    assert "nowhere at or below -180 °C" in nowhere.text


def test_broken_maps_are_refused_by_the_key(kit, read):
    values = ice(grid().grid_lps())
    cut = dose(kit, values, grid())
    cut["PixelData"].value = cut.PixelData[:-2000]
    assert refused(read, ref(), cut).code == "undecodable_pixels"
    skewed = dose(kit, values, grid(), ImageOrientationPatient=[1, 0, 0, 0.5, 0.5, 0])
    assert "impossible image orientation" in refused(read, ref(), skewed).text
    twice = [0.0, 3.0, 3.0, *(3.0 * np.arange(2, 15))]
    assert "two planes" in refused(read, ref(), dose(kit, values, grid(), GridFrameOffsetVector=twice)).text
    close = [0.0, 3.0, 3.0001, *(3.0 * np.arange(2, 15))]
    assert "not evenly spaced" in refused(read, ref(), dose(kit, values, grid(), GridFrameOffsetVector=close)).text


def test_a_dose_table_and_padding(kit, tmp_path, read):
    """A look-up table instead of a slope; what lies outside it is not known."""
    values = np.arange(16 * 18 * 20).reshape(SHAPE) % 40
    dataset = parametric_map(kit, values.astype(float), grid(), kind="u2")
    mapping = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    del mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept
    mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 5, 14
    mapping.RealWorldValueLUTData = np.linspace(-50.0, -5.0, 10).tolist()
    read(ref(), dataset)
    found, _ = read_temperature(read_header(tmp_path / "plan" / "object 0"), "tumor")
    expected = np.where((values >= 5) & (values <= 14), -50.0 + (values - 5) * 5.0, np.nan)
    assert np.allclose(found, expected, equal_nan=True)


WRONG = [
    ({"at_most_c": -20, "at_least_c": 54}, "tumor must have at_most_c or at_least_c, not both"),
    ({"at_most_c": 253}, "tumor.at_most_c must lie between -210 and 200 °C; 253 is probably in kelvin"),
    ({"at_least_c": -253.0}, "tumor.at_least_c must lie between -210 and 200 °C"),
    ({"at_most_c": "cold"}, "tumor.at_most_c must be a number"),
    ({"at_most_c": -20, "segment_number": 1}, "tumor.segment_number is not a known key"),
    ({"path": "t.nii", "sop_instance_uid": None, "at_most_c": -20, "label": 2}, "tumor.label is not a known key"),
    ({"path": "t.nii", "sop_instance_uid": None, "label": 0}, "tumor.label must be a whole number of at least 1"),
]


@pytest.mark.parametrize(("keys", "text"), WRONG)
def test_a_wrong_key_is_named(made_case, keys, text):
    region = {"sop_instance_uid": "1.2", **keys}
    made_case.document["lesions"][0]["tumor"] = {k: v for k, v in region.items() if v is not None}
    made_case.write_plan()
    with pytest.raises(Refused) as problem:
        read_plan_file(made_case.plan)
    assert problem.value.code == "plan_invalid"
    assert text in problem.value.text


@pytest.mark.parametrize("kind", [dose, parametric_map])
def test_a_plan_with_a_map_and_a_threshold(kit, made_case, kind):
    """From plan.json to the case: the zone that was planned is where the map is cold."""
    (lesion,) = made_case.document["lesions"]
    lesion["simulated_zone"] = {"sop_instance_uid": "1.2.7", "at_most_c": -20}
    made_case.write_plan()
    kit.save(kind(kit, ice(grid().grid_lps()), grid()), made_case.plan.parent / "map")
    study = read_case(made_case.plan, baseline=[made_case.baseline], followup=[made_case.followup], previous=[])
    (planned,) = study.case.plan.lesions
    assert planned.simulated_zone.volume_ml == pytest.approx(ball_ml(), rel=0.03)
    assert planned.simulated_zone.centroid_lps_mm == pytest.approx(CENTER, abs=0.1)
    assert planned.tumor.volume_ml == pytest.approx(80 * 2 * 1.5 * 1.25 / 1000)
    lesion["simulated_zone"]["at_most_c"] = -151
    made_case.write_plan()
    with pytest.raises(Refused, match=r"^lesions\[0\]\.simulated_zone: the temperature map is nowhere at or below"):
        read_case(made_case.plan, baseline=[made_case.baseline], followup=[made_case.followup], previous=[])


def test_thresholds_and_labels_are_read(made_case):
    first = made_case.document["lesions"][0]
    first["tumor"] = {"path": "labels.nii.gz", "label": 2}
    first["simulated_zone"] = {"sop_instance_uid": "1.2", "at_most_c": -20}
    made_case.document["organ_mask"] = {"path": "t.nii.gz", "at_least_c": 54.5}
    made_case.write_plan()
    plan = read_plan_file(made_case.plan)
    assert plan.lesions[0].tumor == RegionRef("lesions[0].tumor", path="labels.nii.gz", label=2)
    assert plan.lesions[0].simulated_zone.threshold == Threshold("at_most_c", -20.0)
    assert plan.organ_mask.threshold == Threshold("at_least_c", 54.5)
