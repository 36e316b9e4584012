"""An archive: everything found by content, each follow-up once, everything else with its reason."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

import dicom_node.archive
from dicom_node.batch import run_batch
from dicom_node.child import ChildBroke
from dicom_node.plans import register_plan
from dicom_node.queue import Tools
from dicom_node.refusal import Refused
from dicom_node.settings import Destination
from dicom_node.terminal import batch_complaint


class Silent:
    def __init__(self) -> None:
        self.works: list[tuple[str, int]] = []
        self.items: list[str] = []

    def begin(self, what: str, total: int) -> None:
        self.works.append((what, total))

    def step(self, item: str = "") -> None:
        if item:
            self.items.append(item)


@pytest.fixture
def archive(bench) -> Path:
    """Two patients with plans, one without, junk, a duplicate, all in one heap under odd names."""
    source = bench.folder / "archive"
    source.mkdir()
    number = 0
    for patient_id, studies in {
        "P1": {"baseline": "20260105", "later": "20260601", "earlier": "20260215"},
        "P2": {"baseline": "20260105", "followup": "20260215", "before": "20251101"},
        "P3": {"unplanned": "20260215"},
    }.items():
        patient = bench.patient(patient_id)
        for study, date in studies.items():
            for dataset in patient.slices(study, date):
                number += 1
                (source / f"x{(number * 7919) % 1000:03d}").write_bytes(bench.file_bytes(dataset))
        if patient_id != "P3":
            patient.plan_folder(source / f"plan of {patient_id}")
    (source / "plan of P2" / "plan.json").rename(source / "plan of P2" / "p2 final.json")
    (source / "copy").write_bytes(bench.file_bytes(bench.patient("P1").slice("later", "20260601", 0)))
    (source / "other").write_bytes(bench.file_bytes(bench.patient("P1").slice("later", "20260601", 1, fill=9)))
    (source / "notes.txt").write_text("nothing")
    (source / "broken plan").mkdir()
    (source / "broken plan" / "plan.json").write_text("{")
    return source


def run(bench, archive, progress=None):
    return run_batch(archive, bench.settings, progress or Silent(), tools=Tools(assess=bench.stand_in))


def test_every_item_is_assessed_or_listed_with_its_reason(bench, archive):
    progress = Silent()
    report = run(bench, archive, progress)
    assessed = {(item["patient_id"], item["acquired"]) for item in report.assessed}
    assert assessed == {("P1", "20260215"), ("P1", "20260601"), ("P2", "20260215")}
    by_study = {(i["patient_id"], i["code"]) for i in report.skipped if "study_instance_uid" in i}
    assert by_study == {("P1", "baseline"), ("P2", "baseline"), ("P2", "before_procedure"), ("P3", "no_plan")}
    by_file = {(Path(i["path"]).name, i["code"]) for i in report.skipped if "path" in i}
    assert {("notes.txt", "not_dicom"), ("plan.json", "plan_invalid")} <= by_file
    assert {code for _, code in by_file} == {"not_dicom", "plan_invalid", "duplicate", "conflict"}
    assert (report.refused, report.failed, report.plans_refused) == (0, 0, 1)
    assert batch_complaint(report) == "1 plan refused; mend what the list says of them and run batch again."
    assert progress.works[-1] == ("assessing", 3)
    assert len(progress.items) == 3
    assert all(Path(item["result_folder"]).is_dir() for item in report.assessed)
    assert not (bench.settings.data_folder / "instances").exists()


def test_a_second_run_does_nothing_and_a_new_study_is_added(bench, archive):
    first = run(bench, archive)
    assert len(bench.stand_in.jobs) == 3
    assert run(bench, archive) == first
    assert len(bench.stand_in.jobs) == 3
    for dataset in bench.patient("P2").slices("next", "20260901"):
        (archive / dataset.SOPInstanceUID).write_bytes(bench.file_bytes(dataset))
    assert len(run(bench, archive).assessed) == 4
    assert len(bench.stand_in.jobs) == 4


def test_time_order_within_a_plan(bench, archive):
    run(bench, archive)
    mine = [job for job in bench.stand_in.jobs if len(job.baseline) == 3 and job.previous]
    (later,) = mine
    earlier = bench.stand_in.jobs[[job.out for job in bench.stand_in.jobs].index(later.previous[0])]
    assert bench.stand_in.jobs.index(earlier) < bench.stand_in.jobs.index(later)


def test_what_failed_is_tried_again_by_the_next_run(bench, archive):
    def answer(_):
        raise ChildBroke("boom")

    bench.stand_in.answer = answer
    report = run(bench, archive)
    assert report.assessed == []
    assert (report.refused, report.failed) == (0, 3)
    bench.stand_in.answer = lambda _: bench.document("1.2")
    assert len(run(bench, archive).assessed) == 3


def test_every_refused_follow_up_is_counted_and_complained_of(bench, archive):
    def answer(_):
        raise Refused("one_slice", "The series has a single slice.")

    bench.stand_in.answer = answer
    report = run(bench, archive)
    assert report.assessed == []
    assert (report.refused, report.failed) == (3, 0)
    wrong = "3 follow-ups refused, 1 plan refused"
    assert batch_complaint(report) == f"{wrong}; mend what the list says of them and run batch again."
    assert run(bench, archive) == report


def test_a_running_node_does_the_work(bench, archive):
    bench.node("listener", "worker")
    assert len(run(bench, archive).assessed) == 3


def test_a_folder_without_anything_is_refused(bench):
    (bench.folder / "empty").mkdir()
    with pytest.raises(Refused, match="neither a DICOM study nor a plan"):
        run(bench, bench.folder / "empty")


def test_results_inside_the_archive_are_not_taken_for_studies(bench, archive):
    settings = replace(bench.settings, data_folder=archive / "out")
    for _ in range(2):
        report = run_batch(archive, settings, Silent(), tools=Tools(assess=bench.stand_in))
        assert len(report.assessed) == 3
    assert not any("out" in Path(i.get("path", "")).parts for i in report.skipped)


def test_a_plan_must_not_name_files_outside_its_folder(bench):
    folder = bench.patient().plan_folder(bench.folder / "plan")
    text = (folder / "plan.json").read_text().replace("tumor.nii.gz", "../secret.nii.gz")
    (folder / "plan.json").write_text(text)
    (bench.folder / "secret.nii.gz").write_bytes(b"x")
    with pytest.raises(Refused):
        register_plan(folder, bench.ledger(), bench.settings.data_folder)


def test_results_are_sent_before_the_batch_ends(bench, archive):
    taken: list[str] = []

    def answer(job):
        (Path(job.out) / "dicom").mkdir(parents=True)
        (Path(job.out) / "dicom" / "report.dcm").touch()
        return bench.document("1.2")

    def send(files, *_, **__):
        taken.extend(str(file) for file in files)
        return len(files)

    bench.stand_in.answer = answer
    settings = replace(bench.settings, send=(Destination("PACS", "127.0.0.1", 104),))
    report = run_batch(archive, settings, Silent(), tools=Tools(assess=bench.stand_in, send=send))
    assert len(set(taken)) == len(taken) == len(report.assessed) == 3


def test_a_file_that_cannot_be_read_just_now_changes_nothing(monkeypatch, bench, archive):
    for name in ("copy", "other"):
        (archive / name).unlink()
    first = run(bench, archive)
    for path in archive.iterdir():
        os.utime(path)
    digest = dicom_node.archive.digest_of
    fell = []

    def unreadable(path):
        if path.name.startswith("x") and not fell:
            fell.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return digest(path)

    monkeypatch.setattr(dicom_node.archive, "digest_of", unreadable)
    report = run(bench, archive)
    assert report.assessed == first.assessed
    told = [item for item in report.skipped if item["code"] == "unreadable"]
    assert [item["path"] for item in told] == [str(fell[0])]
    assert told[0]["text"] == f"{fell[0].name} cannot be read (Input/output error); mend that and run batch again."
    assert run(bench, archive) == first
    assert len(bench.stand_in.jobs) == 3


def test_an_instance_whose_first_file_cannot_be_read_just_now_keeps_it(monkeypatch, bench, archive):
    (archive / "other").unlink()
    first = run(bench, archive)
    (copied,) = [item for item in first.skipped if item["code"] == "duplicate"]
    digest = dicom_node.archive.digest_of

    def unreadable(path):
        if str(path) in copied["text"]:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return digest(path)

    monkeypatch.setattr(dicom_node.archive, "digest_of", unreadable)
    report = run(bench, archive)
    assert report.assessed == first.assessed
    assert [item["path"] for item in report.skipped if item["code"] == "unreadable"] == [copied["path"]]
    assert len(bench.stand_in.jobs) == 3


def rewrite(archive: Path, change) -> int:
    """How many files of the archive were changed in place: `change` is given each data set, True where it did."""
    count = 0
    for path in archive.iterdir():
        if path.is_file() and path.name[0] == "x":
            dataset = dcmread(path)
            if change(dataset):
                dataset.save_as(path)
                count += 1
    return count


def test_a_file_repaired_in_place_is_taken_up_by_the_next_run(bench, archive):
    run(bench, archive)
    study = bench.patient("P2").study_uid("followup")
    first = bench.patient("P2").slice("followup", "20260215", 0).SOPInstanceUID

    def repaired(dataset):
        dataset.PixelData = b"\5" * len(dataset.PixelData)
        return dataset.SOPInstanceUID == first

    assert rewrite(archive, repaired) == 1
    report = run(bench, archive)
    assert {item["revision"] for item in report.assessed if item["study_instance_uid"] == study} == {2}
    assert len(bench.stand_in.jobs) == 4
    assert len(bench.stand_in.jobs[3].followup) == 3
    assert run(bench, archive) == report
    assert len(bench.stand_in.jobs) == 4


def test_a_repaired_file_meta_counts_too_and_another_time_does_not(bench, archive):
    run(bench, archive)

    def repaired(dataset):
        dataset.file_meta.ImplementationVersionName = "REPAIRED"
        return dataset.StudyInstanceUID == bench.patient("P2").study_uid("followup")

    assert rewrite(archive, repaired) == 3
    run(bench, archive)
    assert len(bench.stand_in.jobs) == 4
    for path in archive.iterdir():
        os.utime(path)
    run(bench, archive)
    assert len(bench.stand_in.jobs) == 4


def test_a_repaired_baseline_has_all_its_follow_ups_assessed_anew(bench, archive):
    run(bench, archive)

    def repaired(dataset):
        dataset.PixelData = b"\5" * len(dataset.PixelData)
        return dataset.StudyInstanceUID == bench.patient("P1").study_uid("baseline")

    assert rewrite(archive, repaired) == 3
    run(bench, archive)
    assert len(bench.stand_in.jobs) == 5


def test_a_changed_plan_has_its_follow_ups_assessed_anew(bench, archive):
    run(bench, archive)
    bench.patient("P1").plan_folder(archive / "plan of P1", required_margin_mm=8.0)
    report = run(bench, archive)
    assert len(bench.stand_in.jobs) == 5
    assert len({job.plan for job in bench.stand_in.jobs[3:]}) == 1
    assert bench.stand_in.jobs[3].plan not in {job.plan for job in bench.stand_in.jobs[:3]}
    assert len(report.assessed) == 3
    assert run(bench, archive) == report
    assert len(bench.stand_in.jobs) == 5


def test_repaired_identities_are_taken_up(bench, archive):
    """A date, a patient ID and UIDs: the study is found under what it is called now."""
    patient = bench.patient("P1")
    for name in ("copy", "other"):
        (archive / name).unlink()
    run(bench, archive)

    def repaired(dataset):
        if dataset.StudyInstanceUID == patient.study_uid("earlier"):
            dataset.StudyDate = dataset.AcquisitionDate = "20260301"
        elif dataset.PatientID == "P3":
            dataset.PatientID = "P2"
        elif dataset.StudyInstanceUID == patient.study_uid("later"):
            uid = bench.uid_of(dataset.SOPInstanceUID, "repaired")
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        else:
            return False
        return True

    assert rewrite(archive, repaired) == 9
    report = run(bench, archive)
    assessed = {(item["patient_id"], item["acquired"]) for item in report.assessed}
    assert assessed == {("P1", "20260301"), ("P1", "20260601"), ("P2", "20260215")}
    assert len([item for item in report.assessed if item["patient_id"] == "P2"]) == 2
    assert all(len(job.followup) == 3 for job in bench.stand_in.jobs)
    assert all(Path(path).exists() for job in bench.stand_in.jobs for path in job.followup)
    count = len(bench.stand_in.jobs)
    assert run(bench, archive) == report
    assert len(bench.stand_in.jobs) == count
