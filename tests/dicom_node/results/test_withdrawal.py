"""A result that supersedes another names it, and withdraws what a PACS may hold of it; the same answer does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_node.results.identifiers import Replaced
from dicom_node.results.withdrawal import read_earlier


def uids(folder: Path) -> dict[str, str]:
    return {path.name: str(dcmread(path).SOPInstanceUID) for path in (folder / "dicom").glob("*.dcm")}


def withdrawn(folder: Path) -> set[str]:
    study = dcmread(folder / "dicom" / "withdrawal.dcm").CurrentRequestedProcedureEvidenceSequence[0]
    return {
        x.ReferencedSOPInstanceUID for series in study.ReferencedSeriesSequence for x in series.ReferencedSOPSequence
    }


@pytest.fixture
def chain(made, write):
    """First an answer, then another that supersedes it."""
    first, _ = write(*made.scene("liver_complete"), "first")
    second, _ = write(*made.scene("liver"), "second", supersedes=[first])
    return first, second


def test_the_new_report_names_the_old_one_and_everything_old_is_withdrawn(chain, errors_of):
    first, second = chain
    report = dcmread(second / "dicom" / "report.dcm")
    (study,) = report.PredecessorDocumentsSequence
    (named,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == uids(first)["report.dcm"]
    assert b"takes the place of an earlier one" in (second / "dicom" / "report.dcm").read_bytes()
    selection = dcmread(second / "dicom" / "withdrawal.dcm")
    assert selection.SOPClassUID == KeyObjectSelectionDocumentStorage
    title = selection.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113001", "DCM")
    assert selection.StudyInstanceUID == report.StudyInstanceUID
    assert withdrawn(second) == set(uids(first).values())
    assert not withdrawn(second) & set(uids(second).values())
    for name in ("withdrawal.dcm", "report.dcm"):
        assert errors_of(second / "dicom" / name) == []


def test_the_same_answer_again_is_the_same_objects_and_withdraws_nothing_more(chain, made, write):
    first, second = chain
    again, _ = write(*made.scene("liver"), "again", supersedes=[second, first])
    assert uids(again) == uids(second)
    assert withdrawn(again) == set(uids(first).values())
    alone, _ = write(*made.scene("liver_complete"), "alone", supersedes=[first])
    assert uids(alone) == uids(first)
    assert "withdrawal.dcm" not in uids(alone)


def test_an_answer_that_comes_back_after_it_was_withdrawn_is_new_objects(chain, made, write):
    first, second = chain
    third, _ = write(*made.scene("liver_complete"), "third", supersedes=[second, first])
    theirs = {**uids(second)}
    del theirs["withdrawal.dcm"]
    assert withdrawn(third) == {*theirs.values(), *uids(first).values()}
    assert not set(uids(third).values()) & set(uids(first).values())


def test_a_folder_that_only_withdraws_tells_which_report_is_replaced_next(chain, made, write, tmp_path):
    first, second = chain
    (tmp_path / "refused" / "dicom").mkdir(parents=True)
    (second / "dicom" / "withdrawal.dcm").rename(tmp_path / "refused" / "dicom" / "withdrawal.dcm")
    earlier = read_earlier([tmp_path / "refused"])
    report = dcmread(first / "dicom" / "report.dcm")
    assert not earlier.stands
    assert earlier.report == Replaced(report.SOPInstanceUID, report.SeriesInstanceUID)
    next_one, _ = write(*made.scene("liver_complete"), "next", supersedes=[tmp_path / "refused"])
    assert "withdrawal.dcm" not in uids(next_one)
    assert "PredecessorDocumentsSequence" in dcmread(next_one / "dicom" / "report.dcm")
    assert not set(uids(next_one).values()) & set(uids(first).values())


def test_what_cannot_be_read_is_not_named(tmp_path):
    assert read_earlier([tmp_path]) is None
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "report.dcm").write_bytes(b"broken")
    assert read_earlier([tmp_path]) is None
