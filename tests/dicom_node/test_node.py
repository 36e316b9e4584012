"""The running node with a stand-in for the assessment: what is assessed, in which order, how often."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from sqlalchemy.exc import OperationalError

from dicom_node.archive import enter_archive, files_of
from dicom_node.child import ChildBroke
from dicom_node.plans import register_plan
from dicom_node.refusal import Refused
from dicom_node.serve import Node
from dicom_node.worklist import Entry, worklist


def send(node: Node, datasets: list[Any]) -> list[int]:
    """The status of each C-STORE."""
    ae = AE(ae_title="TESTER")
    for syntax in sorted({d.file_meta.TransferSyntaxUID for d in datasets}):
        ae.add_requested_context(datasets[0].SOPClassUID, syntax)
    association = ae.associate("127.0.0.1", node.settings.listener.port, ae_title="MARGINWATCH")
    assert association.is_established
    try:
        return [association.send_c_store(dataset).Status for dataset in datasets]
    finally:
        association.release()
        node.settle(within_s=3.0)


def entry_of(node: Node, study_uid: str) -> Entry:
    return next(entry for entry in worklist(node.ledger) if entry.study.study_instance_uid == study_uid)


def done(node: Node, study_uid: str, revision: int = 1) -> bool:
    entry = next((e for e in worklist(node.ledger) if e.study.study_instance_uid == study_uid), None)
    return entry is not None and entry.state == "done" and entry.record.revision == revision


def test_a_follow_up_is_assessed_once_against_its_plan(bench):
    patient = bench.patient()
    node = bench.node("listener", "worker")
    register_plan(patient.plan_folder(bench.folder / "plan"), node.ledger, node.settings.data_folder)
    assert set(send(node, patient.slices("baseline", "20260105"))) == {0}
    assert set(send(node, patient.slices("followup", "20260215"))) == {0}
    bench.wait_until(lambda: done(node, patient.study_uid("followup")))
    (job,) = bench.stand_in.jobs
    assert len(job.baseline) == len(job.followup) == 3
    assert job.previous == ()
    assert entry_of(node, patient.study_uid("baseline")).state == "baseline"
    assert entry_of(node, patient.study_uid("followup")).outcome == "complete"


def test_a_follow_up_waits_for_its_baseline_and_a_study_for_its_plan(bench):
    patient = bench.patient()
    node = bench.node("listener", "worker")
    send(node, patient.slices("followup", "20260215"))
    uid = patient.study_uid("followup")
    bench.wait_until(lambda: entry_of(node, uid).state == "no_plan")
    register_plan(patient.plan_folder(bench.folder / "plan"), node.ledger, node.settings.data_folder)
    assert entry_of(node, uid).state == "waiting_for_baseline"
    send(node, patient.slices("baseline", "20260105"))
    bench.wait_until(lambda: done(node, uid))


def test_follow_ups_of_a_plan_run_in_time_order_and_pass_on_their_results(bench):
    patient = bench.patient()
    node = bench.node("listener", "worker")
    register_plan(patient.plan_folder(bench.folder / "plan"), node.ledger, node.settings.data_folder)
    send(node, patient.slices("later", "20260601") + patient.slices("earlier", "20260215"))
    send(node, patient.slices("baseline", "20260105"))
    bench.wait_until(lambda: done(node, patient.study_uid("later")))
    first, second = bench.stand_in.jobs
    assert patient.study_uid("earlier") in first.followup[0]
    assert second.previous == (first.out,)


def test_a_late_slice_makes_a_new_revision_that_supersedes(bench):
    patient = bench.patient()
    node = bench.node("listener", "worker")
    register_plan(patient.plan_folder(bench.folder / "plan"), node.ledger, node.settings.data_folder)
    send(node, patient.slices("baseline", "20260105") + patient.slices("followup", "20260215"))
    uid = patient.study_uid("followup")
    bench.wait_until(lambda: done(node, uid))
    first = entry_of(node, uid).record
    send(node, [patient.slice("followup", "20260215", 99)])
    bench.wait_until(lambda: done(node, uid, revision=2))
    assert node.ledger.assessment(first.assessment_id).superseded
    assert [len(job.followup) for job in bench.stand_in.jobs] == [3, 4]


def test_the_same_instance_again_changes_nothing_and_other_bytes_are_put_aside(bench):
    patient = bench.patient()
    node = bench.node("listener", "worker")
    original = patient.slice("baseline", "20260105", 0)
    assert send(node, [original, original]) == [0, 0]
    bench.wait_until(lambda: node.ledger.studies()[0].complete)
    other = patient.slice("baseline", "20260105", 0, fill=7)
    assert send(node, [other, other]) == [0, 0]
    (study,) = node.ledger.studies()
    assert study.complete
    assert study.revision == 1
    assert node.ledger.conflict_counts() == {patient.study_uid("baseline"): 1}
    kept = node.settings.data_folder / node.ledger.instance(original.SOPInstanceUID).path
    assert kept.read_bytes().endswith(original.PixelData)
    assert len(list((node.settings.data_folder / "conflicts").rglob("*.dcm"))) == 1


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_stored_file_that_is_lost_or_damaged_is_healed_by_a_resend(bench, damage):
    patient = bench.patient()
    node = bench.node("listener", "worker")
    register_plan(patient.plan_folder(bench.folder / "plan"), node.ledger, node.settings.data_folder)
    send(node, patient.slices("baseline", "20260105") + patient.slices("followup", "20260215"))
    uid = patient.study_uid("followup")
    bench.wait_until(lambda: done(node, uid))
    again = patient.slice("followup", "20260215", 1)
    stored = node.settings.data_folder / node.ledger.instance(again.SOPInstanceUID).path
    before = stored.read_bytes()
    damage(stored)
    assert send(node, [again]) == [0]
    assert stored.read_bytes() == before
    assert node.ledger.conflict_counts() == {}
    bench.wait_until(lambda: done(node, uid, revision=2))
    assert [len(job.followup) for job in bench.stand_in.jobs] == [3, 3]


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ESTALE, errno.EACCES])
def test_a_stored_file_that_cannot_be_read_just_now_is_not_taken_for_lost(monkeypatch, bench, number):
    """Else a resend with other bytes would take the first instance's place."""
    node = bench.node("listener")
    original = bench.patient().slice("baseline", "20260105", 0)
    assert send(node, [original]) == [0]
    stored = node.settings.data_folder / node.ledger.instance(original.SOPInstanceUID).path
    before, opened = stored.read_bytes(), Path.open

    def unreadable(path, *arguments, **named):
        if path == stored:
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", unreadable)
        other = bench.patient().slice("baseline", "20260105", 0, fill=7)
        assert send(node, [original, other]) == [0, 0]
        assert node.ledger.conflict_counts() == {}
        assert len(list((node.settings.data_folder / "inbox").iterdir())) == 2
    bench.wait_until(lambda: node.ledger.conflict_counts() == {bench.patient().study_uid("baseline"): 1})
    assert stored.read_bytes() == before
    bench.wait_until(lambda: not list((node.settings.data_folder / "inbox").iterdir()))


def test_what_comes_while_the_database_is_away_waits_for_it(monkeypatch, bench):
    node = bench.node("listener")

    def away(*_, **__):
        raise OperationalError("INSERT", {}, Exception("the server closed the connection"))

    dataset = bench.patient().slice("baseline", "20260105", 0)
    with monkeypatch.context() as patched:
        patched.setattr(node.ledger, "arrived_together", away)
        assert send(node, [dataset]) == [0]
        assert node.ledger.instance(dataset.SOPInstanceUID) is None
    bench.wait_until(lambda: node.ledger.instance(dataset.SOPInstanceUID) is not None)


def test_what_an_archive_brought_may_come_again_by_c_store(bench):
    """The same data set is the same instance; a file of the archive that is gone is kept here from then on."""
    source = bench.folder / "archive"
    source.mkdir()
    slices = bench.patient().slices("baseline", "20260105")
    for number, dataset in enumerate(slices):
        dataset.file_meta.ImplementationVersionName = "ANOTHER"
        (source / f"{number}.dcm").write_bytes(bench.file_bytes(dataset))
    bare = source / "2.dcm"
    bare.write_bytes(bare.read_bytes()[132:])  # without preamble
    node = bench.node("listener")
    enter_archive(files_of(source, leave_out=bench.folder / "data"), node.ledger, node.settings.data_folder)
    assert set(send(node, slices)) == {0}
    assert node.ledger.conflict_counts() == {}
    (study,) = node.ledger.studies()
    assert (study.images, study.revision) == (3, 1)
    (source / "0.dcm").unlink()
    assert send(node, [slices[0]]) == [0]
    kept = node.settings.data_folder / node.ledger.instance(slices[0].SOPInstanceUID).path
    assert kept.is_relative_to(node.settings.data_folder)
    assert kept.read_bytes().endswith(slices[0].PixelData)
    other = bench.patient().slice("baseline", "20260105", 1, fill=7)
    assert send(node, [other]) == [0]
    assert node.ledger.conflict_counts() == {study.study_instance_uid: 1}


def test_a_refusal_is_recorded_and_the_next_study_is_assessed(bench):
    def answer(job):
        if "P1" in job.plan or bench.patient("P1").study_uid("followup") in job.followup[0]:
            raise Refused("one_slice", "The series has a single slice.")
        return bench.document("1.2", "narrow_margin", 2.0)

    bench.stand_in.answer = answer
    node = bench.node("listener", "worker")
    for patient_id in ("P1", "P2"):
        patient = bench.patient(patient_id)
        register_plan(patient.plan_folder(bench.folder / patient_id), node.ledger, node.settings.data_folder)
        send(node, patient.slices("baseline", "20260105") + patient.slices("followup", "20260215"))
    refused, narrow = bench.patient("P1").study_uid("followup"), bench.patient("P2").study_uid("followup")
    bench.wait_until(lambda: done(node, narrow) and entry_of(node, refused).state == "refused")
    assert entry_of(node, refused).as_json()["error"] == {"code": "one_slice", "text": "The series has a single slice."}
    assert entry_of(node, narrow).outcome == "narrow_margin"


def test_a_bug_is_tried_again_a_bounded_number_of_times(bench):
    def answer(_):
        raise ChildBroke("boom")

    bench.stand_in.answer = answer
    patient = bench.patient()
    node = bench.node("listener", "worker")
    register_plan(patient.plan_folder(bench.folder / "plan"), node.ledger, node.settings.data_folder)
    send(node, patient.slices("baseline", "20260105") + patient.slices("followup", "20260215"))
    uid = patient.study_uid("followup")
    bench.wait_until(lambda: entry_of(node, uid).state == "failed")
    assert len(bench.stand_in.jobs) == 2
    assert "boom" in entry_of(node, uid).record.text
    bench.stand_in.answer = lambda _: bench.document("1.2")
    node.ledger.reopen_failed()
    bench.wait_until(lambda: done(node, uid))


def test_a_restarted_node_does_nothing_twice(bench):
    patient = bench.patient()
    node = bench.node("listener", "worker")
    register_plan(patient.plan_folder(bench.folder / "plan"), node.ledger, node.settings.data_folder)
    send(node, patient.slices("baseline", "20260105") + patient.slices("followup", "20260215"))
    bench.wait_until(lambda: done(node, patient.study_uid("followup")))
    bench.stop(node)
    again = bench.node("listener", "worker")
    send(again, patient.slices("followup", "20260215"))
    later = bench.patient("P2")
    register_plan(later.plan_folder(bench.folder / "plan2"), again.ledger, again.settings.data_folder)
    send(again, later.slices("baseline", "20260105") + later.slices("followup", "20260215"))
    bench.wait_until(lambda: done(again, later.study_uid("followup")))
    assert len(bench.stand_in.jobs) == 2


def test_a_corrected_plan_is_assessed_anew(bench):
    patient = bench.patient()
    node = bench.node("listener", "worker")
    register_plan(patient.plan_folder(bench.folder / "plan"), node.ledger, node.settings.data_folder)
    send(node, patient.slices("baseline", "20260105") + patient.slices("followup", "20260215"))
    bench.wait_until(lambda: done(node, patient.study_uid("followup")))
    first = entry_of(node, patient.study_uid("followup")).record
    register_plan(bench.folder / "plan", node.ledger, node.settings.data_folder)
    corrected = patient.plan_folder(bench.folder / "corrected", required_margin_mm=10.0)
    register_plan(corrected, node.ledger, node.settings.data_folder)
    bench.wait_until(lambda: len(bench.stand_in.jobs) == 2)
    bench.wait_until(lambda: done(node, patient.study_uid("followup")))
    again = entry_of(node, patient.study_uid("followup")).record
    assert (first.number, again.number) == (1, 2)
    assert again.folder != first.folder
    assert node.ledger.assessment(first.assessment_id).superseded
    assert json.loads(Path(bench.stand_in.jobs[1].plan).read_text())["lesions"][0]["required_margin_mm"] == 10.0
    assert len(bench.stand_in.jobs) == 2


def test_studies_that_came_before_their_plan_are_picked_up(bench):
    """Also by a node that was not running when the plan was added."""
    patient = bench.patient()
    node = bench.node("listener", "worker")
    send(node, patient.slices("baseline", "20260105") + patient.slices("followup", "20260215"))
    bench.wait_until(lambda: entry_of(node, patient.study_uid("followup")).state == "no_plan")
    bench.stop(node)
    ledger = bench.ledger()
    register_plan(patient.plan_folder(bench.folder / "plan"), ledger, bench.settings.data_folder)
    ledger.close()
    again = bench.node("worker")
    bench.wait_until(lambda: done(again, patient.study_uid("followup")))


def test_only_one_worker_runs_on_a_data_folder(bench):
    bench.node("worker")
    with pytest.raises(Refused, match="already running"):
        Node(bench.settings, parts=("worker",)).start()
