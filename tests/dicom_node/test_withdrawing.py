"""A study that was assessed, sent, and then cannot be assessed any more: what stands in the PACS is withdrawn."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage

from dicom_node import withdrawing
from dicom_node.durable import whole_folder
from dicom_node.identity import identity_of
from dicom_node.plans import register_plan
from dicom_node.queue import Tools
from dicom_node.refusal import Refused
from dicom_node.routing import relation
from dicom_node.send import NotSent
from dicom_node.serve import Node
from dicom_node.settings import Destination
from dicom_node.withdrawing import withdrawals
from dicom_node.worklist import worklist


@pytest.fixture
def sent() -> list[list[Path]]:
    return []


@pytest.fixture
def node(bench, sent):
    """A worker with one destination; each send is noted."""

    def send(files, *_, **__):
        sent.append(list(files))
        return len(files)

    settings = replace(bench.settings, send=(Destination("PACS", "127.0.0.1", 104),))
    node = Node(settings, parts=("worker",), tools=Tools(assess=bench.stand_in, send=send))
    bench.nodes.append(node)
    node.start()
    return node


def report(bench):
    """A result object that can be withdrawn."""
    made = bench.patient().slice("followup", "20260215", 500)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = Comprehensive3DSRStorage
    for keyword in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyTime"):
        setattr(made, keyword, "")
    made.ReferringPhysicianName = ""
    return made


def arrive(bench, node, dataset) -> None:
    path = bench.folder / f"{dataset.SOPInstanceUID}.dcm"
    path.write_bytes(bench.file_bytes(dataset))
    node.ledger.arrived(identity_of(dataset), path)


def give_first(bench, node, then: Exception | None = None) -> None:
    """A patient whose follow-up can be assessed and brings a report; what comes of it when it is assessed again."""

    def answer(job):
        if then is not None and len(bench.stand_in.jobs) > 1:
            raise then
        (Path(job.out) / "dicom").mkdir(parents=True)
        (Path(job.out) / "dicom" / "report.dcm").write_bytes(bench.file_bytes(report(bench)))
        return bench.document("1.2")

    bench.stand_in.answer = answer
    patient = bench.patient()
    register_plan(patient.plan_folder(bench.folder / "plan"), node.ledger, node.settings.data_folder)
    for study, date in (("baseline", "20260105"), ("followup", "20260215")):
        for dataset in patient.slices(study, date):
            arrive(bench, node, dataset)


def withdrawn(path: Path) -> str:
    """The instance that a withdrawal names."""
    (study,) = dcmread(path).CurrentRequestedProcedureEvidenceSequence
    (item,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    return str(item.ReferencedSOPInstanceUID)


@pytest.mark.parametrize(
    ("then", "state"),
    [(Refused("missing_slices", "A slice is missing."), "refused"), (ValueError("a bug"), "failed")],
)
def test_a_study_without_a_new_result_withdraws_the_one_that_the_pacs_holds(bench, node, sent, then, state):
    give_first(bench, node, then)
    bench.wait_until(lambda: len(sent) == 1)
    bench.wait_until(lambda: node.ledger.owed() == [])
    arrive(bench, node, bench.patient().slice("followup", "20260215", 99))
    bench.wait_until(lambda: len(sent) == 2)
    (first,) = bench.stand_in.jobs[1].supersedes
    assert sent[0][0].is_relative_to(first)
    (file,) = sent[1]
    assert withdrawn(file) == report(bench).SOPInstanceUID
    assert any(entry.state == state for entry in worklist(node.ledger))
    assert withdrawals(node.ledger) == {"owed": 0, "failed": 0, "made": 1}


def test_a_withdrawal_that_cannot_be_written_is_tried_until_it_can(bench, node, sent, monkeypatch):
    tries = []

    def full(target):
        tries.append(target)
        if len(tries) == 1:
            raise OSError(28, "No space left on device")
        return whole_folder(target)

    monkeypatch.setattr(withdrawing, "whole_folder", full)
    give_first(bench, node, Refused("missing_slices", "A slice is missing."))
    bench.wait_until(lambda: len(sent) == 1)
    bench.wait_until(lambda: node.ledger.owed() == [])
    arrive(bench, node, bench.patient().slice("followup", "20260215", 99))
    bench.wait_until(lambda: withdrawals(node.ledger)["failed"] == 1)
    assert any(entry.state == "refused" for entry in worklist(node.ledger))
    bench.wait_until(lambda: len(sent) == 2)
    assert withdrawn(sent[1][0]) == report(bench).SOPInstanceUID


def test_a_result_that_cannot_be_read_stays_to_be_withdrawn(bench, node, sent):
    give_first(bench, node, Refused("missing_slices", "A slice is missing."))
    bench.wait_until(lambda: len(sent) == 1)
    bench.wait_until(lambda: node.ledger.owed() == [])
    whole = sent[0][0].read_bytes()
    sent[0][0].write_bytes(b"rubbish")
    arrive(bench, node, bench.patient().slice("followup", "20260215", 99))
    bench.wait_until(lambda: withdrawals(node.ledger)["failed"] == 1)
    sent[0][0].write_bytes(whole)
    bench.wait_until(lambda: len(sent) == 2)


def test_what_is_called_off_withdraws_too(bench, node, sent):
    go_on = threading.Event()
    give_first(bench, node)
    bench.wait_until(lambda: len(sent) == 1)
    bench.wait_until(lambda: node.ledger.owed() == [])
    bench.stand_in.answer = lambda _: go_on.wait(20) and bench.document("1.2")
    arrive(bench, node, bench.patient().slice("followup", "20260215", 99))
    record = bench.wait_until(lambda: next((r for r in node.ledger.current_assessments() if r.number == 2), None))
    bench.wait_until(lambda: len(bench.stand_in.jobs) == 2)
    assert node.ledger.cancel(record.assessment_id)
    bench.wait_until(lambda: len(sent) == 2)
    assert withdrawn(sent[1][0]) == report(bench).SOPInstanceUID
    go_on.set()


def test_the_same_patient_id_of_another_issuer_is_another_patient(bench):
    ledger = bench.ledger()
    folder = bench.patient().plan_folder(bench.folder / "plan")
    text = (folder / "plan.json").read_text()
    (folder / "plan.json").write_text(text.replace("{", '{"issuer_of_patient_id": "HERE", ', 1))
    plan = register_plan(folder, ledger, bench.settings.data_folder)
    assert plan.issuer_of_patient_id == "HERE"
    for name, issuer in (("mine", "HERE"), ("other", "THERE"), ("unsaid", "")):
        dataset = bench.patient().slice(name, "20260301", 0)
        if issuer:
            dataset.IssuerOfPatientID = issuer
        ledger.arrived(identity_of(dataset), Path(f"{name}.dcm"))
    relations = {study.study_instance_uid: relation(study, plan) for study in ledger.studies()}
    assert relations == {
        bench.patient().study_uid("mine"): "followup",
        bench.patient().study_uid("other"): "other_patient",
        bench.patient().study_uid("unsaid"): "followup",
    }
    ledger.close()


def test_what_is_being_sent_when_another_image_comes_is_withdrawn(bench):
    begun, go_on = threading.Event(), threading.Event()

    def send(*_, **__):
        begun.set()
        go_on.wait(20)
        raise NotSent("broken off")

    settings = replace(bench.settings, send=(Destination("PACS", "127.0.0.1", 104),))
    node = Node(settings, parts=("worker",), tools=Tools(assess=bench.stand_in, send=send))
    bench.nodes.append(node)
    node.start()
    give_first(bench, node)
    assert begun.wait(20)
    (first,) = node.ledger.owed()
    assert first.state == "sending"
    arrive(bench, node, bench.patient().slice("followup", "20260215", 99))
    bench.wait_until(lambda: len(bench.stand_in.jobs) == 2)
    assert bench.stand_in.jobs[1].supersedes == (bench.stand_in.jobs[0].out,)
    go_on.set()
