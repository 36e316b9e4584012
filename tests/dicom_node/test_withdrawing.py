"""A study that was assessed, sent, and then cannot be assessed any more: what stands in the PACS is withdrawn."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage

from dicom_node.identity import identity_of
from dicom_node.plans import register_plan
from dicom_node.queue import Tools
from dicom_node.refusal import Refused
from dicom_node.routing import relation
from dicom_node.send import NotSent
from dicom_node.serve import Node
from dicom_node.settings import Destination
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


def test_a_refused_study_withdraws_the_result_that_the_pacs_holds(bench, node, sent):
    def answer(job):
        if len(bench.stand_in.jobs) > 1:
            raise Refused("missing_slices", "A slice is missing.")
        (Path(job.out) / "dicom").mkdir(parents=True)
        (Path(job.out) / "dicom" / "report.dcm").write_bytes(bench.file_bytes(report(bench)))
        return bench.document("1.2")

    bench.stand_in.answer = answer
    patient = bench.patient()
    register_plan(patient.plan_folder(bench.folder / "plan"), node.ledger, node.settings.data_folder)
    for study, date in (("baseline", "20260105"), ("followup", "20260215")):
        for dataset in patient.slices(study, date):
            arrive(bench, node, dataset)
    bench.wait_until(lambda: len(sent) == 1)
    bench.wait_until(lambda: node.ledger.owed() == [])
    arrive(bench, node, patient.slice("followup", "20260215", 99))
    bench.wait_until(lambda: len(sent) == 2)
    (first,) = bench.stand_in.jobs[1].supersedes
    assert sent[0][0].is_relative_to(first)
    (file,) = sent[1]
    (study,) = dcmread(file).CurrentRequestedProcedureEvidenceSequence
    (item,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert item.ReferencedSOPInstanceUID == report(bench).SOPInstanceUID
    assert any(entry.state == "refused" for entry in worklist(node.ledger))


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


def give_first(bench, node) -> None:
    """A patient whose follow-up can be assessed; each assessment brings a report."""

    def answer(job):
        (Path(job.out) / "dicom").mkdir(parents=True)
        (Path(job.out) / "dicom" / "report.dcm").write_bytes(bench.file_bytes(report(bench)))
        return bench.document("1.2")

    bench.stand_in.answer = answer
    patient = bench.patient()
    register_plan(patient.plan_folder(bench.folder / "plan"), node.ledger, node.settings.data_folder)
    for study, date in (("baseline", "20260105"), ("followup", "20260215")):
        for dataset in patient.slices(study, date):
            arrive(bench, node, dataset)


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
