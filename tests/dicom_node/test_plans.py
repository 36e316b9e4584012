"""The node's own copy of a plan: whole, on the disk, and mended when a crash cut an earlier copy short."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import RTStructureSetStorage

from dicom_node.assessing import assess_files
from dicom_node.plans import register_plan
from dicom_node.refusal import Refused


def test_the_copy_is_on_the_disk_when_the_plan_is_registered(bench, monkeypatch):
    synced: set[int] = set()
    fsync = os.fsync

    def recording(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    ledger = bench.ledger()
    plan = register_plan(bench.patient().plan_folder(bench.folder / "plan"), ledger, bench.settings.data_folder)
    copy = bench.settings.data_folder / plan.folder
    assert {path.stat().st_ino for path in (copy.parent, copy, *copy.rglob("*"))} <= synced
    ledger.close()


def test_a_copy_cut_short_by_a_crash_is_replaced(bench):
    ledger = bench.ledger()
    source = bench.patient().plan_folder(bench.folder / "plan")
    plan = register_plan(source, ledger, bench.settings.data_folder)
    copy = bench.settings.data_folder / plan.folder
    (copy / "tumor.nii.gz").unlink()
    (copy / "plan.json").write_bytes(b"")
    again = register_plan(source, ledger, bench.settings.data_folder)
    assert again.folder == plan.folder
    for name in ("plan.json", "tumor.nii.gz"):
        assert (copy / name).read_bytes() == (source / name).read_bytes()
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    ledger.close()


def test_the_same_plan_again_leaves_its_copy_alone(bench):
    ledger = bench.ledger()
    source = bench.patient().plan_folder(bench.folder / "plan")
    copy = bench.settings.data_folder / register_plan(source, ledger, bench.settings.data_folder).folder
    before = copy.stat().st_ino
    register_plan(source, ledger, bench.settings.data_folder)
    assert copy.stat().st_ino == before
    ledger.close()


@pytest.fixture(scope="module")
def phantom(written_phantom):
    return written_phantom


def spoiled(phantom, folder: Path, **changes: Any) -> Path:
    """A copy of the phantom's plan folder in which the tumor is named otherwise."""
    shutil.copytree(phantom.plan.parent, folder)
    document = json.loads(phantom.plan.read_text())
    if "path" in changes:
        document["lesions"][0]["tumor"] = changes
    else:
        document["lesions"][0]["tumor"].update(changes)
        if "roi_number" in changes:
            del document["lesions"][0]["tumor"]["segment_number"]
    (folder / "plan.json").write_text(json.dumps(document))
    (folder / "empty").mkdir()
    return folder


#: An assessment looks in the plan's folder alone.
ABSENT = (
    "that is not in the plan's folder.",
    "that is neither in the plan's folder nor received by the node; send it to the node or put it beside plan.json.",
)


@pytest.mark.parametrize(
    "changes",
    [
        {"segment_number": 99},
        {"roi_number": 1},
        {"sop_instance_uid": "1.2.3"},
        {"path": "gone.nii.gz"},
        {"path": "plan.json"},
        {"path": "."},
        {"path": "../plan.json"},
    ],
    ids=str,
)
def test_a_region_that_is_not_there_is_refused_as_an_assessment_would(bench, phantom, changes):
    source = spoiled(phantom, bench.folder / "plan", **changes)
    ledger = bench.ledger()
    with pytest.raises(Refused) as added:
        register_plan(source, ledger, bench.settings.data_folder)
    assert ledger.plans() == []
    assert not (bench.settings.data_folder / "plans").exists()
    ledger.close()
    with pytest.raises(Refused) as assessed:
        assess_files(
            source / "plan.json",
            baseline=[phantom.baseline],
            followup=[phantom.followups[0]],
            previous=[],
            out=bench.folder / "out",
        )
    assert added.value.code == assessed.value.code
    assert added.value.text == assessed.value.text.replace(*ABSENT)
    assert added.value.text.startswith("lesions[0].tumor")


def test_a_roi_that_is_not_in_the_rtstruct_or_not_drawn_is_refused(bench, structures):
    plan = bench.patient().plan_folder(bench.folder / "plan")
    (plan / "structures.dcm").write_bytes(bench.file_bytes(structures))
    document = json.loads((plan / "plan.json").read_text())
    ledger = bench.ledger()

    def register(number: int) -> None:
        document["lesions"][0]["tumor"] = {"sop_instance_uid": structures.SOPInstanceUID, "roi_number": number}
        (plan / "plan.json").write_text(json.dumps(document))
        register_plan(plan, ledger, bench.settings.data_folder)

    with pytest.raises(Refused, match="roi_number 9 is not in the RTSTRUCT"):
        register(9)
    with pytest.raises(Refused, match="the region is empty"):
        register(2)
    register(1)
    assert len(ledger.plans()) == 1
    ledger.close()


@pytest.fixture
def structures(bench) -> Dataset:
    """An RTSTRUCT with ROI 1 drawn and ROI 2 only named."""
    out = bench.patient().slice("structures", "20260105", 0)
    out.SOPClassUID = out.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    for keyword in ("Rows", "Columns", "PixelData", "SamplesPerPixel", "PhotometricInterpretation"):
        delattr(out, keyword)
    rois = [Dataset(), Dataset()]
    for number, roi in enumerate(rois, 1):
        roi.ROINumber, roi.ROIName = number, f"ROI {number}"
    contour, drawn = Dataset(), Dataset()
    contour.ContourGeometricType, contour.ContourData = "CLOSED_PLANAR", [0, 0, 0, 9, 0, 0, 9, 9, 0]
    drawn.ReferencedROINumber, drawn.ContourSequence = 1, [contour]
    out.StructureSetROISequence, out.ROIContourSequence = rois, [drawn]
    return out
