"""The DICOM objects: valid, read back the same, and the same again for the same answer."""

from __future__ import annotations

import copy
import uuid
from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest
from matplotlib.figure import Figure
from pydicom.sr.codedict import codes as public
from pydicom.uid import UID

from dicom_node import codes
from dicom_node.results.document import _write_scale
from dicom_node.results.page import Page
from dicom_node.results.sources import decimal, is_matched, source_heads
from dicom_node.uids import derived_uid
from pipeline.assessment import Reason

#: The name space of our UIDs: another one would make every lesion a new one to a PACS.
OURS = uuid.UUID("6f0d1b5e-6a0c-5b1e-9d53-3c1f0e2a7b94")
KINDS = [
    "ct_complete",
    "ct_incomplete",
    "ct_two",
    "ct_flipped",
    "ct_blank",
    "mr_complete",
    "mr_two",
    "mr_blank",
    "lung_incomplete",
    "kidney_complete",
]


@pytest.mark.parametrize("kind", KINDS)
def test_validator_finds_no_error(written, errors_of, kind):
    out = written(kind)
    found = {path.name: errors_of(path) for path in sorted((out / "dicom").glob("*.dcm"))}
    assert len(found) >= 5
    assert {name: errors for name, errors in found.items() if errors} == {}


def test_validator_finds_no_error_for_enhanced_source(made, write, errors_of):
    assessment, study = made.scene("ct_two")
    grid = study.case.followup.volume.geometry
    out, _ = write(assessment, replace(study, source_images=made.enhanced_header(grid)))
    assert [error for path in (out / "dicom").glob("*.dcm") for error in errors_of(path)] == []
    seg = pydicom.dcmread(out / "dicom" / "segmentation.dcm")
    source = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    position = seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    k = round(float(grid.index_of([float(x) for x in position])[0]))
    assert source.ReferencedFrameNumber == k + 1


def broken(header):
    """A header as bad ones come: missing, empty and odd attributes."""
    for keyword in ("PatientBirthDate", "StudyID", "Manufacturer", "StudyDescription", "PositionReferenceIndicator"):
        del header[keyword]
    header.AccessionNumber = None
    header.PatientSex = ""
    header.ReferringPhysicianName = None
    header.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    header.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    header.StudyTime = ""
    return header


@pytest.mark.parametrize("kind", ["ct_two", "mr_blank"])
def test_broken_headers_still_give_valid_objects(made, write, errors_of, kind):
    assessment, study = made.scene(kind)
    bad = tuple(broken(copy.deepcopy(header)) for header in study.source_images)
    out, _ = write(assessment, replace(study, source_images=bad))
    found = {path.name: errors_of(path) for path in (out / "dicom").glob("*.dcm")}
    assert {name: errors for name, errors in found.items() if errors} == {}
    assert str(pydicom.dcmread(out / "dicom" / "report.dcm").PatientName).startswith("Yamada^Tarou=山田^太郎")


@pytest.mark.filterwarnings("ignore:The .*length .* exceeds the maximum:UserWarning")
@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_values_that_break_their_own_rules_do_not_stop_the_results(made, write):
    assessment, study = made.scene("ct_incomplete")
    bad = tuple(copy.deepcopy(header) for header in study.source_images)
    for header in bad:
        header.PatientSex, header.PatientAge, header.StudyDate = "FEMALE", "65", "yesterday"
        header.StudyTime, header.PatientBirthDate = "09:30:00", "1960.01.01"
        header.AccessionNumber = "A-NUMBER-LONGER-THAN-SIXTEEN"
        header.StudyDescription = ["abdomen", "contrast"]
        header.PatientName = "Anna\tMüller^" + 70 * "x"
        del header.SpecificCharacterSet
    out, _ = write(assessment, replace(study, source_images=bad))
    report = pydicom.dcmread(out / "dicom" / "report.dcm")
    assert (report.PatientSex, report.StudyDate, report.StudyTime) == ("", "", "")
    assert report.PatientBirthDate == "19600101"
    assert "PatientAge" not in report
    assert report.AccessionNumber == "A-NUMBER-LONGER-THAN-SIXTEEN"
    assert report.StudyDescription == "abdomen/contrast"


@pytest.mark.parametrize("kind", ["ct_two", "ct_flipped", "mr_two"])
def test_segmentation_reads_back_as_the_masks(made, written, kind):
    assessment, study = made.scene(kind)
    out = written(kind)
    seg = hd.seg.segread(out / "dicom" / "segmentation.dcm")
    grid = study.case.followup.volume.geometry
    volume = seg.get_volume(combine_segments=False)
    number = 0
    for lesion in assessment.lesions:
        for region in ("zone", "tumor", "uncovered"):
            mask = getattr(lesion, region)
            if mask.is_empty:
                continue
            index = np.argwhere(volume.array[..., number])
            lps = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
            back = np.zeros(grid.shape, bool)
            back[tuple(np.round(grid.index_of(lps)).astype(int).T)] = True
            assert (back == mask.voxels).all()
            number += 1
            described = seg.get_segment_description(number)
            assert described.tracking_id == lesion.lesion_id
            assert described.tracking_uid == derived_uid(OURS, "lesion", "MADE-1-plan", lesion.lesion_id)
    assert number == seg.number_of_segments


def test_segmentation_names_the_source_image_of_each_frame(made, written):
    _assessment, study = made.scene("ct_two")
    out = written("ct_two")
    seg = pydicom.dcmread(out / "dicom" / "segmentation.dcm")
    at = {source.SOPInstanceUID: source.ImagePositionPatient for source in study.source_images}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert [float(x) for x in frame.PlanePositionSequence[0].ImagePositionPatient] == pytest.approx(
            [float(x) for x in at[source]], abs=1e-4
        )
    assert seg.SegmentsOverlap == "YES"
    assert (seg.Rows, seg.Columns) == (96, 96)


def test_resampled_followup_gets_its_own_geometry(made, write, errors_of):
    assessment, study = made.scene("ct_two")
    tilted = tuple(copy.deepcopy(header) for header in study.source_images[::2])
    for header in tilted:
        header.ImageOrientationPatient = [1, 0, 0, 0, 0.95105652, 0.30901699]
        header.Rows = 90
    study = replace(study, source_images=tilted, sources_match_grid=False)
    assert not is_matched(study.sources)
    out, _ = write(assessment, study)
    seg = pydicom.dcmread(out / "dicom" / "segmentation.dcm")
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert [float(x) for x in shared.PlaneOrientationSequence[0].ImageOrientationPatient] == [1, 0, 0, 0, 1, 0]
    assert seg.Rows == 96
    assert not any(frame.get("DerivationImageSequence") for frame in seg.PerFrameFunctionalGroupsSequence)
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == study.series_instance_uid
    assert [error for path in (out / "dicom").glob("*.dcm") for error in errors_of(path)] == []


def test_headers_that_do_not_fit_the_volume_are_not_trusted(made):
    _, study = made.scene("ct_two")
    assert is_matched(study.sources)
    assert not is_matched(replace(study, source_images=study.source_images[::-1]).sources)
    assert not is_matched(replace(study, source_images=study.source_images[1:]).sources)


def test_only_the_slices_asked_for_are_heads(made):
    _, study = made.scene("ct_two")
    heads = source_heads(study.sources, (5, 9))
    assert [head.SOPInstanceUID for head in heads] == [s.SOPInstanceUID for s in study.source_images[5:9]]


@pytest.mark.parametrize("value", [-157.92012200001, 1e-17, -0.30901699437494745, 123456.123456789, -1e-9])
def test_decimals_fit_their_representation(value):
    assert len(decimal(value)) <= 16
    assert float(decimal(value)) == pytest.approx(value, abs=1e-6)


def numbers(group):
    return {item.name.value: float(item.value) for item in group.get_measurements()}


def texts(report):
    """Every text in the report."""
    return {str(element.value) for element in report.iterall() if element.keyword == "TextValue"}


def outcome_of(group):
    (found,) = (item.value for item in group.get_qualitative_evaluations() if item.name == codes.OUTCOME)
    return found


def test_report_holds_the_numbers(made, written):
    assessment, _study = made.scene("ct_two")
    out = written("ct_two")
    report = hd.sr.srread(out / "dicom" / "report.dcm")
    assert report.VerificationFlag == "UNVERIFIED"
    assert report.PreliminaryFlag == "PRELIMINARY"
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 5
    group = groups[0]
    held = numbers(group)
    margin = assessment.lesions[0].margin
    assert held["MAM"] == pytest.approx(margin.minimal_margin_mm, abs=1e-3)
    assert (held["MAMLOW"], held["MAMHIGH"]) == pytest.approx(margin.minimal_margin_interval_mm, abs=1e-3)
    assert held["MAMORG"] == pytest.approx(margin.organ_limited_margin_mm, abs=1e-3)
    assert (held["PMAMLT0"], held["PMAMLTREQ"]) == pytest.approx((90.0, 95.0))
    assert held["REQMARGIN"] == 5.0
    assert held["TUMCOV"] == pytest.approx(100 * margin.covered_fraction, abs=1e-3)
    assert held[public.SCT.Volume.value] == pytest.approx(margin.tumor_volume_ml, abs=1e-3)
    assert outcome_of(group) == codes.OUTCOMES["incomplete_coverage"]
    seg = hd.seg.segread(out / "dicom" / "segmentation.dcm")
    for group in groups:
        referred = group.referenced_segment
        assert referred[0].referenced_sop_instance_uid == seg.SOPInstanceUID
        described = seg.get_segment_description(referred[0].referenced_segment_numbers[0])
        assert group.tracking_uid == described.tracking_uid
    (finding,) = report.content.get_image_measurement_groups()
    assert numbers(finding)["L0JK"] == pytest.approx(9.5)
    said = texts(report)
    assert "Lesion L1: made for a test." in said
    assert "33 days after ablation" in said
    assert "Not for primary diagnosis. A radiologist decides." in said


def test_report_of_what_could_not_be_assessed_refers_to_no_region(written):
    out = written("ct_blank")
    report = hd.sr.srread(out / "dicom" / "report.dcm")
    assert report.content.get_volumetric_roi_measurement_groups() == []
    (group,) = report.content.get_image_measurement_groups()
    assert outcome_of(group) == codes.OUTCOMES["not_assessable"]
    assert "MAM" not in numbers(group)
    assert "No ablation zone was found." in texts(report)


def test_captures_are_one_series_without_the_patients_name(made, written):
    _assessment, study = made.scene("ct_two")
    out = written("ct_two")
    captures = [pydicom.dcmread(path) for path in sorted((out / "dicom").glob("capture-*.dcm"))]
    assert len(captures) == 6
    assert len({capture.SeriesInstanceUID for capture in captures}) == 1
    assert len({capture.SOPInstanceUID for capture in captures}) == 6
    for capture in captures:
        assert capture.StudyInstanceUID == study.study_instance_uid
        assert capture.StudyDescription == "CT abdomen with contrast"
        assert capture.PhotometricInterpretation == "RGB"
        assert "primary diagnosis" in capture.ImageComments
        assert capture.pixel_array.shape[2] == 3


@pytest.mark.parametrize(("limited_mm", "marks"), [(None, 0), (6.0, 0), (8.5, 1)])
def test_a_margin_that_the_organs_edge_limits_has_a_mark_of_its_own(made, limited_mm, marks):
    """On the report's scale the raw margin alone would lie where too narrow ones do."""
    lesion = made.lesion(made.geometry(), "L1", (-80, -20, -120))
    lesion = replace(lesion, margin=replace(lesion.margin, organ_limited_margin_mm=limited_mm))
    page = Page(Figure(figsize=(8, 11)))
    _write_scale(page, (lesion,))
    (axes,) = page.figure.axes
    diamonds = [line for line in axes.lines if line.get_marker() == "D"]
    assert [line.get_xdata()[0] for line in diamonds] == [limited_mm] * marks
    assert sum("organ's edge" in text.get_text() for text in page.figure.texts) == marks


def test_pdf_is_in_the_object(written):
    out = written("ct_two")
    document = pydicom.dcmread(out / "dicom" / "document.dcm")
    held = document.EncapsulatedDocument[: document.EncapsulatedDocumentLength]
    assert held == (out / "report.pdf").read_bytes()


def uids(folder):
    found = {}
    for path in sorted((folder / "dicom").glob("*.dcm")):
        read = pydicom.dcmread(path, stop_before_pixels=True)
        assert UID(read.SOPInstanceUID).is_valid
        assert UID(read.SeriesInstanceUID).is_valid
        found[path.name] = (read.SOPInstanceUID, read.SeriesInstanceUID)
    return found


def test_the_same_answer_has_the_same_identifiers(made, write, written):
    assessment, study = made.scene("ct_complete")
    first = uids(written("ct_complete"))
    later = replace(assessment, timing_s={"register": 99.0})
    assert uids(write(later, study, "second")[0]) == first
    other = replace(assessment, reasons=(Reason("other", "Something else."),))
    changed = uids(write(other, study, "third")[0])
    assert not {uid for pair in changed.values() for uid in pair} & {uid for pair in first.values() for uid in pair}


def test_every_object_belongs_to_the_followups_study(made, written):
    _, study = made.scene("mr_two")
    out = written("mr_two")
    for path in (out / "dicom").glob("*.dcm"):
        read = pydicom.dcmread(path)
        assert read.StudyInstanceUID == study.study_instance_uid
        assert (read.PatientID, str(read.PatientName)) == ("MADE-1", "Müller^Anna")
        assert read.AccessionNumber == "A1"
