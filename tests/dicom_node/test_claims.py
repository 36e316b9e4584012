"""Claims in the ledger: one holder at a time, and nothing from one who was declared lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.claims import ROUTING, Claims
from dicom_node.identity import identity_of
from dicom_node.plans import register_plan
from dicom_node.records import WorkerRecord
from dicom_node.routing import Order, route


def entered(ledger, name: str) -> Claims:
    claims = Claims(ledger, WorkerRecord(name, "host", "1", 0.0, 1, 0))
    claims.enter(alone=False)
    return claims


def lose(claims: Claims, name: str) -> None:
    """Let a worker be declared lost by another."""
    assert claims.fence(next(worker for worker in claims.workers() if worker.worker_id == name))


@pytest.fixture
def workers(ledger):
    return entered(ledger, "first"), entered(ledger, "second")


@pytest.fixture
def assessment_id(bench, ledger) -> str:
    """An assessment that is due."""
    patient = bench.patient()
    register_plan(patient.plan_folder(bench.folder / "plan"), ledger, bench.settings.data_folder)
    for study, date in (("baseline", "20260105"), ("followup", "20260215")):
        for dataset in patient.slices(study, date):
            ledger.arrived(identity_of(dataset), Path(f"{dataset.SOPInstanceUID}.dcm"))
        ledger.complete([patient.study_uid(study)])
    (record,) = route(ledger, Order(1, "1"))
    return record.assessment_id


def test_a_lease_is_one_workers_until_that_lives_no_more(workers):
    first, second = workers
    assert first.lease(ROUTING)
    assert first.lease(ROUTING)
    assert not second.lease(ROUTING)
    lose(second, "first")
    assert not first.lease(ROUTING)
    assert second.lease(ROUTING)
    second.leave()
    assert not first.lease(ROUTING)


def test_a_worker_that_shows_a_sign_of_life_in_time_is_not_lost(workers):
    first, second = workers
    seen = next(worker for worker in second.workers() if worker.worker_id == "first")
    assert first.beat()
    assert not second.fence(seen)
    lose(second, "first")
    assert not first.beat()
    assert [worker.worker_id for worker in second.workers()] == ["second"]


def test_who_is_alone_declares_everybody_else_lost(ledger, workers):
    alone = Claims(ledger, WorkerRecord("alone", "host", "1", 0.0, 1, 0))
    alone.enter(alone=True)
    assert [worker.worker_id for worker in alone.workers()] == ["alone"]
    assert not any(worker.beat() for worker in workers)


def test_only_the_last_holder_can_say_how_an_assessment_ended(ledger, workers, assessment_id):
    first, second = workers
    old = first.claim(assessment_id)
    assert first.held() == {assessment_id: old}
    lose(second, "first")
    assert second.take_over(assessment_id, "first") is None  # not without the lease
    assert second.lease(ROUTING)
    assert second.take_over(assessment_id, "first") == 1
    assert second.take_over(assessment_id, "first") is None  # it is nobody's now
    assert first.held() == {}
    assert first.claim(assessment_id) is None
    assert not ledger.ended(assessment_id, "done", document={"by": "first"}, send_to=["PACS"], token=old)
    new = second.claim(assessment_id)
    assert ledger.ended(assessment_id, "done", document={"by": "second"}, send_to=["PACS"], token=new)
    assert not ledger.ended(assessment_id, "failed", text="again", token=new)
    assert ledger.assessment(assessment_id).document == {"by": "second"}
    assert [send.state for send in ledger.sends(assessment_id)] == ["pending"]
    assert second.claim(assessment_id) is None


def test_only_the_elected_router_records_what_is_due(ledger, workers, assessment_id):
    first, second = workers
    assert first.lease(ROUTING)
    ledger.cancel(assessment_id)
    ledger.reopen(assessment_id)
    assert route(ledger, Order(1, "1"), permitted=second.holds(ROUTING)) == []
    lose(second, "first")
    assert route(ledger, Order(1, "1"), permitted=first.holds(ROUTING)) == []
    assert second.lease(ROUTING)
    assert len(route(ledger, Order(1, "1"), permitted=second.holds(ROUTING))) == 1


def test_what_a_worker_left_in_good_order_does_not_count_as_a_death(workers, assessment_id):
    first, second = workers
    first.claim(assessment_id)
    first.leave()
    second.lease(ROUTING)
    assert second.take_over(assessment_id, "first") == 0


def test_only_the_holder_of_its_lease_can_say_what_a_pacs_has_taken(ledger, workers, assessment_id):
    first, second = workers
    token = first.claim(assessment_id)
    ledger.ended(assessment_id, "done", document={}, send_to=["PACS"], token=token)
    (owed,) = ledger.owed()
    assert first.lease("send PACS")
    assert not second.sent(owed, lease="send PACS", state="sent", text="", at=1.0)
    lose(second, "first")
    assert not first.sent(owed, lease="send PACS", state="sent", text="", at=1.0)
    assert second.lease("send PACS")
    assert second.sent(owed, lease="send PACS", state="sent", text="2 objects", at=1.0)
    assert ledger.owed() == []


def test_what_was_called_off_has_ended_and_can_be_made_again(ledger, workers, assessment_id):
    first, _ = workers
    token = first.claim(assessment_id)
    assert not ledger.reopen(assessment_id)
    assert ledger.cancel(assessment_id)
    assert not ledger.cancel(assessment_id)
    assert first.held() == {}
    assert not ledger.ended(assessment_id, "done", document={}, token=token)
    assert ledger.assessment(assessment_id).state == "cancelled"
    assert route(ledger, Order(1, "1")) == []
    assert ledger.reopen(assessment_id)
    (again,) = route(ledger, Order(1, "1"))
    assert (again.number, again.state) == (2, "queued")


def test_what_lay_in_an_archive_waits_for_what_was_sent(bench, ledger, assessment_id):
    assert ledger.assessment(assessment_id).priority == 1
    patient = bench.patient("P2")
    register_plan(patient.plan_folder(bench.folder / "plan2"), ledger, bench.settings.data_folder)
    datasets = patient.slices("baseline", "20260105") + patient.slices("followup", "20260215")
    for dataset in datasets:
        ledger.arrived(identity_of(dataset), Path("/archive") / f"{dataset.SOPInstanceUID}.dcm")
    ledger.complete([patient.study_uid("baseline"), patient.study_uid("followup")])
    assert {record.priority for record in route(ledger, Order(1, "1"))} == {1, 100}
