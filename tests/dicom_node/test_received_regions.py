"""Plans whose objects are not beside plan.json: received by C-STORE, or anywhere in an archive; linked frames too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ParametricMapStorage,
    RTDoseStorage,
    RTStructureSetStorage,
    SpatialRegistrationStorage,
)
from pynetdicom import AE
from typer.testing import CliRunner

from dicom_node.archive import enter_archive, files_of
from dicom_node.cli import app
from dicom_node.decode.case import read_case
from dicom_node.decode.planned import read_planned
from dicom_node.plans import register_plan
from dicom_node.probe_table import probe_table
from dicom_node.refusal import Refused

OTHER = "1.2.3.88"
ASIDE_MM = (25.0, -40.0, 10.0)


def linking(segmentation: Dataset, frames: dict[str, tuple[float, ...]], uid: str) -> Dataset:
    """A Spatial Registration. frames: the shift that leads from each to the frame of the first one."""
    out = Dataset()
    out.SOPClassUID, out.SOPInstanceUID, out.Modality = SpatialRegistrationStorage, uid, "REG"
    out.PatientID, out.StudyInstanceUID = segmentation.PatientID, segmentation.StudyInstanceUID
    out.SeriesInstanceUID, out.FrameOfReferenceUID = f"{uid}.1", next(iter(frames))
    out.RegistrationSequence = []
    for frame, shift in frames.items():
        matrix = np.eye(4)
        matrix[:3, 3] = shift
        step, steps, item = Dataset(), Dataset(), Dataset()
        step.FrameOfReferenceTransformationMatrixType = "RIGID"
        step.FrameOfReferenceTransformationMatrix = matrix.ravel().tolist()
        steps.MatrixSequence = [step]
        item.FrameOfReferenceUID, item.MatrixRegistrationSequence = frame, [steps]
        out.RegistrationSequence.append(item)
    out.file_meta = FileMetaDataset()
    out.file_meta.MediaStorageSOPClassUID, out.file_meta.MediaStorageSOPInstanceUID = out.SOPClassUID, uid
    out.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return out


@pytest.fixture(scope="module")
def objects(written_phantom) -> tuple[Dataset, ...]:
    """The phantom's SEG, the same drawn 48 mm aside in another frame, what links that frame, and what links none."""
    here = dcmread(written_phantom.plan.parent / "regions.dcm")
    aside = dcmread(written_phantom.plan.parent / "regions.dcm")
    aside.FrameOfReferenceUID = OTHER
    for frame in aside.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0]
        place.ImagePositionPatient = [p + a for p, a in zip(place.ImagePositionPatient, ASIDE_MM, strict=True)]
    back = tuple(-a for a in ASIDE_MM)
    link = linking(here, {here.FrameOfReferenceUID: (0, 0, 0), OTHER: back}, "1.2.3.500")
    stranger = linking(here, {here.FrameOfReferenceUID: (0, 0, 0), "1.2.3.77": back}, "1.2.3.501")
    return here, aside, link, stranger


@pytest.fixture
def plan(written_phantom, tmp_path) -> Path:
    """A folder with plan.json alone."""
    folder = tmp_path / "only the plan"
    folder.mkdir()
    shutil.copy(written_phantom.plan, folder)
    return folder


def send(node, datasets) -> None:
    ae = AE(ae_title="TESTER")
    for kind in sorted({d.SOPClassUID for d in datasets}):
        ae.add_requested_context(kind, sorted({d.file_meta.TransferSyntaxUID for d in datasets}))
    association = ae.associate("127.0.0.1", node.settings.listener.port, ae_title="MARGINWATCH")
    assert {association.send_c_store(dataset).Status for dataset in datasets} == {0}
    association.release()
    node.settle()


def received(node, study_uid) -> list[Path]:
    return [node.settings.data_folder / i.path for i in node.ledger.instances(study_uid)]


@pytest.mark.parametrize("is_aside", [False, True], ids=["in the baseline's frame", "in a linked frame"])
def test_plan_add_takes_what_the_node_has_received(bench, written_phantom, objects, plan, is_aside):
    here, aside, link, stranger = objects
    node = bench.node("listener")
    slices = [dcmread(path) for path in sorted(written_phantom.baseline.iterdir())]
    send(node, [*slices, aside, link, stranger] if is_aside else [*slices, here, link, stranger])
    config = bench.folder / "node.toml"
    config.write_text(f'data_folder = "{bench.settings.data_folder}"\n')
    added = CliRunner().invoke(app, ["plan", "add", str(plan), "--config", str(config), "--json"])
    assert added.exit_code == 0, added.output
    (registered,) = node.ledger.plans()
    copy = bench.settings.data_folder / registered.folder
    names = {path.name for path in copy.iterdir()}
    assert names == {"plan.json", "object-1.dcm", *(["registration-1.dcm"] if is_aside else [])}
    if is_aside:
        assert dcmread(copy / "registration-1.dcm").SOPInstanceUID == link.SOPInstanceUID
    study_uid = json.loads((plan / "plan.json").read_text())["baseline"]["study_instance_uid"]
    case = read_case(
        copy / "plan.json",
        baseline=received(node, study_uid),
        followup=[written_phantom.followups[0]],
        previous=[],
    )
    expected = read_case(
        written_phantom.plan,
        baseline=[written_phantom.baseline],
        followup=[written_phantom.followups[0]],
        previous=[],
    )
    (lesion,), (before,) = case.case.plan.lesions, expected.case.plan.lesions
    assert np.array_equal(lesion.tumor.voxels, before.tumor.voxels)
    assert np.array_equal(lesion.simulated_zone.voxels, before.simulated_zone.voxels)
    carried = [note.text for note in case.notes if note.code == "region_carried_over"]
    assert len(carried) == is_aside
    again = register_plan(plan, node.ledger, bench.settings.data_folder)
    assert again.digest == registered.digest


def item(**values) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def of_patient(like: Dataset, kind: str, uid: str, modality: str) -> Dataset:
    """An object without its content, of the patient and frame of another."""
    made = item(SOPClassUID=kind, SOPInstanceUID=uid, Modality=modality, PatientID=like.PatientID)
    made.StudyInstanceUID, made.SeriesInstanceUID = f"{uid}.1", f"{uid}.2"
    made.FrameOfReferenceUID = like.FrameOfReferenceUID
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = kind, uid
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def ball_contours(like: Dataset, center: np.ndarray, radius_mm: float) -> Dataset:
    """An RTSTRUCT with a ball as ROI 3, a contour every millimetre."""
    made = of_patient(like, RTStructureSetStorage, "1.2.3.601", "RTSTRUCT")
    angle, contours = np.linspace(0, 2 * np.pi, 72, endpoint=False), []
    for height in np.arange(-radius_mm + 0.5, radius_mm):
        across = np.sqrt(radius_mm**2 - height**2)
        ring = center + np.stack([across * np.cos(angle), across * np.sin(angle), np.full(72, height)], -1)
        data = [f"{value:.3f}" for value in ring.ravel()]
        contours.append(item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=72, ContourData=data))
    frame = like.FrameOfReferenceUID
    made.StructureSetROISequence = [item(ROINumber=3, ROIName="tumor", ReferencedFrameOfReferenceUID=frame)]
    made.ROIContourSequence = [item(ReferencedROINumber=3, ContourSequence=contours)]
    return made


def map_around(center: np.ndarray, half_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Cells of 2 mm around a point that hold 3 °C for each millimetre from it; and where the first one lies."""
    side = np.arange(-half_mm, half_mm + 1, 2.0)
    z, y, x = np.meshgrid(side, side, side, indexing="ij")
    return 3.0 * np.sqrt(x**2 + y**2 + z**2), center - half_mm


def temperatures(like: Dataset, center: np.ndarray, kind: str) -> Dataset:
    """The same map as an RT Dose or as a Parametric Map."""
    is_dose = kind == RTDoseStorage
    values, first = map_around(center, 40.0)
    made = of_patient(like, kind, "1.2.3.602" if is_dose else "1.2.3.603", "RTDOSE" if is_dose else "MR")
    made.NumberOfFrames, made.Rows, made.Columns = values.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    if is_dose:
        made.ImagePositionPatient, made.ImageOrientationPatient = first.tolist(), [1, 0, 0, 0, 1, 0]
        made.PixelSpacing, made.GridFrameOffsetVector = [2.0, 2.0], (2.0 * np.arange(len(values))).tolist()
        made.BitsAllocated = made.BitsStored = 16
        made.HighBit, made.PixelRepresentation, made.DoseGridScaling = 15, 1, 0.01
        made.add_new("PixelData", "OW", np.round(values * 100).astype("i2").tobytes())
        return made
    measures = item(PixelSpacing=[2.0, 2.0], SliceThickness=2.0, SpacingBetweenSlices=2.0)
    turn = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    made.SharedFunctionalGroupsSequence = [item(PlaneOrientationSequence=[turn], PixelMeasuresSequence=[measures])]
    made.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=[item(ImagePositionPatient=[*first[:2].tolist(), float(first[2] + 2.0 * k)])])
        for k in range(len(values))
    ]
    made.BitsAllocated, made.FloatPixelData = 32, values.astype("f4").tobytes()
    return made


def test_plan_add_takes_contours_and_maps_that_the_node_has_received(bench, written_phantom, objects, plan):
    """The tumor from an RTSTRUCT, the planned zone from an RT Dose, the organ from a Parametric Map: three balls."""
    known = read_planned(written_phantom.plan, baseline=None, probes=probe_table())
    center = known.plan.lesions[0].tumor.centroid_lps_mm
    sent = [
        ball_contours(objects[0], center, 8.0),
        temperatures(objects[0], center, RTDoseStorage),
        temperatures(objects[0], center, ParametricMapStorage),
    ]
    document = json.loads((plan / "plan.json").read_text())
    lesion = document["lesions"][0]
    lesion["tumor"] = {"sop_instance_uid": sent[0].SOPInstanceUID, "roi_number": 3}
    lesion["simulated_zone"] = {"sop_instance_uid": sent[1].SOPInstanceUID, "at_most_c": 45.0}
    document["organ_mask"] = {"sop_instance_uid": sent[2].SOPInstanceUID, "at_most_c": 90.0}
    (plan / "plan.json").write_text(json.dumps(document))
    node = bench.node("listener")
    send(node, sent)
    config = bench.folder / "node.toml"
    config.write_text(f'data_folder = "{bench.settings.data_folder}"\n')
    added = CliRunner().invoke(app, ["plan", "add", str(plan), "--config", str(config), "--json"])
    assert added.exit_code == 0, added.output
    (registered,) = node.ledger.plans()
    copy = bench.settings.data_folder / registered.folder
    held = {dcmread(path).SOPInstanceUID for path in copy.glob("object-*.dcm")}
    assert held == {dataset.SOPInstanceUID for dataset in sent}
    study = read_planned(copy / "plan.json", baseline=sorted(written_phantom.baseline.iterdir()), probes=probe_table())
    (found,) = study.plan.lesions
    for region, radius_mm in ((found.tumor, 8.0), (found.simulated_zone, 15.0), (study.plan.organ_mask, 30.0)):
        assert region.volume_ml == pytest.approx(4 / 3 * np.pi * radius_mm**3 / 1000, rel=0.05)
        assert region.centroid_lps_mm == pytest.approx(center, abs=0.3)


def test_what_is_nowhere_is_refused_with_both_places(bench, plan):
    ledger = bench.ledger()
    text = r"neither in the plan's folder nor received by the node; send it to the node or put it beside plan\.json\.$"
    with pytest.raises(Refused, match=text) as refused:
        register_plan(plan, ledger, bench.settings.data_folder)
    assert refused.value.code == "region_missing"
    assert refused.value.text.startswith("lesions[0].tumor.sop_instance_uid")
    ledger.close()


def test_what_was_received_and_is_lost_is_missing(bench, objects, plan):
    node = bench.node("listener")
    send(node, [objects[0]])
    (instance,) = node.ledger.instances(objects[0].StudyInstanceUID)
    (bench.settings.data_folder / instance.path).unlink()
    with pytest.raises(Refused, match="nor received by the node"):
        register_plan(plan, node.ledger, bench.settings.data_folder)


def test_the_folder_comes_before_what_was_received(bench, objects, plan):
    node = bench.node("listener")
    send(node, [objects[1]])
    objects[0].save_as(plan / "mine.dcm")
    registered = register_plan(plan, node.ledger, bench.settings.data_folder)
    copied = dcmread(bench.settings.data_folder / registered.folder / "object-1.dcm")
    assert copied.FrameOfReferenceUID == objects[0].FrameOfReferenceUID


def test_a_link_in_the_folder_is_preferred_to_those_received(bench, objects, plan):
    here, aside, link, _ = objects
    wrong = linking(here, {here.FrameOfReferenceUID: (0, 0, 0), OTHER: (0, 0, 0)}, "1.2.3.502")
    node = bench.node("listener")
    send(node, [wrong, link, aside])
    link.save_as(plan / "right.dcm", enforce_file_format=True)
    copy = bench.settings.data_folder / register_plan(plan, node.ledger, bench.settings.data_folder).folder
    assert {path.name for path in copy.iterdir()} == {"plan.json", "object-1.dcm", "registration-1.dcm"}
    assert dcmread(copy / "registration-1.dcm").SOPInstanceUID == link.SOPInstanceUID
    (plan / "right.dcm").unlink()
    copy = bench.settings.data_folder / register_plan(plan, node.ledger, bench.settings.data_folder).folder
    assert len(list(copy.glob("registration-*.dcm"))) == 2


def test_an_object_received_for_another_patient_is_refused(bench, objects, plan):
    other = dcmread(objects[0].filename)
    other.PatientID = "SOMEBODY-ELSE"
    node = bench.node("listener")
    send(node, [other])
    with pytest.raises(Refused) as refused:
        register_plan(plan, node.ledger, bench.settings.data_folder)
    assert refused.value.code == "patient_mismatch"


def test_an_archive_with_objects_anywhere(bench, written_phantom, objects, plan):
    _, aside, link, stranger = objects
    heap = bench.folder / "heap"
    shutil.copytree(written_phantom.baseline, heap / "a")
    shutil.move(plan, heap / "b")
    (heap / "c").mkdir()
    for number, dataset in enumerate((aside, link, stranger)):
        dataset.save_as(heap / "c" / f"x{number}", enforce_file_format=True)
    ledger = bench.ledger()
    archive = enter_archive(files_of(heap, leave_out=bench.settings.data_folder), ledger, bench.settings.data_folder)
    assert archive.passed_over == []
    (registered,) = ledger.plans()
    copy = bench.settings.data_folder / registered.folder
    assert {path.name for path in copy.iterdir()} == {"plan.json", "object-1.dcm", "registration-1.dcm"}
    assert dcmread(copy / "registration-1.dcm").SOPInstanceUID == link.SOPInstanceUID
    ledger.close()


def test_before_the_baseline_is_there_every_link_of_the_region_is_kept(bench, objects, plan):
    """Whichever of them leads to the baseline is told when that is there."""
    _, aside, link, stranger = objects
    for number, dataset in enumerate((aside, link, stranger)):
        dataset.save_as(plan / f"x{number}", enforce_file_format=True)
    ledger = bench.ledger()
    registered = register_plan(plan, ledger, bench.settings.data_folder)
    copy = bench.settings.data_folder / registered.folder
    assert {path.name for path in copy.iterdir()} == {"plan.json", "object-1.dcm", "registration-1.dcm"}
    ledger.close()
