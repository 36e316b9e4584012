"""A worker that is lost, called off or outdone; what is left to others; which resource is used."""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, update

from dicom_node.attempt import Attempts
from dicom_node.back_off import BackOff
from dicom_node.child import ChildBroke, assess_in_child
from dicom_node.claims import Claims, Station
from dicom_node.coordinator import Coordinator, least_loaded
from dicom_node.engine import Unfinished
from dicom_node.identity import identity_of
from dicom_node.plans import register_plan
from dicom_node.queue import Tools
from dicom_node.records import WorkerRecord
from dicom_node.routing import Order
from dicom_node.schema import WORKERS
from dicom_node.serve import Node
from dicom_node.worklist import worklist


def give(bench, ledger, patient_id: str, root: Path = Path()) -> str:
    """A patient with plan and studies, complete; the follow-up's UID."""
    patient = bench.patient(patient_id)
    for study, date in (("baseline", "20260105"), ("followup", "20260215")):
        for dataset in patient.slices(study, date):
            ledger.arrived(identity_of(dataset), root / f"{dataset.SOPInstanceUID}.dcm")
        ledger.complete([patient.study_uid(study)])
    register_plan(patient.plan_folder(bench.folder / patient_id), ledger, bench.settings.data_folder)
    return patient.study_uid("followup")


def state(ledger, uid: str) -> str:
    return next(entry.state for entry in worklist(ledger) if entry.study.study_instance_uid == uid)


def record_of(ledger, uid: str):
    return next(record for record in ledger.current_assessments() if record.study_instance_uid == uid)


def declare_lost(ledger) -> None:
    with ledger.transaction() as connection:
        connection.execute(update(WORKERS).values(lost=True))


def quick(bench, **changed):
    """The bench's settings with signs of life in quick succession."""
    worker = replace(bench.settings.worker, heartbeat_s=0.2, takeover_after_s=1.0, **changed)
    return replace(bench.settings, worker=worker)


def started(bench, settings, assess) -> Node:
    node = Node(settings, parts=("worker",), tools=Tools(assess=assess, back_off=BackOff(0.01, 0.05)))
    bench.nodes.append(node)
    node.start()
    return node


def test_a_worker_that_was_declared_lost_begins_anew_and_its_old_answer_counts_for_nothing(bench):
    node = started(bench, quick(bench), bench.stand_in)

    def answer(_):
        if len(bench.stand_in.jobs) == 1:
            declare_lost(node.ledger)
            bench.wait_until(lambda: len(bench.stand_in.jobs) == 2 or time.monotonic() > give_up_at)
            return bench.document("1.2", "incomplete_coverage")
        return bench.document("1.2", "complete")

    give_up_at = time.monotonic() + 6
    bench.stand_in.answer = answer
    uid = give(bench, node.ledger, "P1")
    bench.wait_until(lambda: state(node.ledger, uid) == "done")
    record = record_of(node.ledger, uid)
    assert record.document["outcome"] == "complete"
    assert (record.takeovers, record.number) == (1, 1)
    assert len({job.out for job in bench.stand_in.jobs}) == 2
    with node.ledger.transaction() as connection:
        assert len(connection.execute(select(WORKERS).where(~WORKERS.c.lost)).all()) == 1


def test_a_study_that_takes_its_worker_down_every_time_is_set_aside(bench):
    node = started(bench, quick(bench, takeovers=1), bench.stand_in)

    def answer(_):
        declare_lost(node.ledger)
        time.sleep(0.8)
        raise ChildBroke("killed")

    bench.stand_in.answer = answer
    uid = give(bench, node.ledger, "P1")
    bench.wait_until(lambda: state(node.ledger, uid) == "failed", seconds=60)
    assert record_of(node.ledger, uid).text == "the worker died 2 times while it was at this study"
    bench.stand_in.answer = lambda _: bench.document("1.2")
    other = give(bench, node.ledger, "P2")
    bench.wait_until(lambda: state(node.ledger, other) == "done")


def test_what_is_called_off_stops_within_a_second_and_the_next_begins(bench):
    code = (
        "import json, time, pathlib\n"
        "from dicom_node.child import answer_one\n"
        "def assess(plan, *, out, **_):\n"
        f"    time.sleep(0 if pathlib.Path({str(bench.folder / 'fast')!r}).exists() else 60)\n"
        "    out.mkdir(parents=True)\n"
        "    (out / 'assessment.json').write_text('{}')\n"
        "    return {'outcome': 'complete'}\n"
        "answer_one(assess)\n"
    )
    children = []

    def assess(job, *, watch, **named):
        return assess_in_child(job, command=(sys.executable, "-c", code), watch=seen(watch), **named)

    def seen(watch):
        return lambda child: (children.append(child), watch(child))

    node = started(bench, quick(bench), assess)
    uid = give(bench, node.ledger, "P1")
    bench.wait_until(lambda: state(node.ledger, uid) == "running" and children)
    called_off = time.monotonic()
    assert node.ledger.cancel(record_of(node.ledger, uid).assessment_id)
    bench.wait_until(lambda: children[0].poll() is not None)
    assert time.monotonic() - called_off < 1.5
    assert state(node.ledger, uid) == "cancelled"
    (bench.folder / "fast").touch()
    assert node.ledger.reopen(record_of(node.ledger, uid).assessment_id)
    bench.wait_until(lambda: state(node.ledger, uid) == "done")
    assert record_of(node.ledger, uid).number == 2


def test_what_was_sent_is_assessed_before_what_lay_in_an_archive(bench):
    go_on = threading.Event()
    bench.stand_in.answer = lambda _: go_on.wait(20) and bench.document("1.2")
    node = started(bench, quick(bench), bench.stand_in)
    first = give(bench, node.ledger, "FIRST", Path("/archive"))
    bench.wait_until(lambda: state(node.ledger, first) == "running")
    names = {give(bench, node.ledger, f"ARCHIVE{n}", Path("/archive")): "archive" for n in range(2)}
    bench.wait_until(lambda: len(node.ledger.current_assessments()) == 3)
    time.sleep(0.5)
    names[give(bench, node.ledger, "ROUTED")] = "routed"
    bench.wait_until(lambda: len(node.ledger.current_assessments()) == 4)
    time.sleep(0.8)
    go_on.set()
    bench.wait_until(lambda: all(state(node.ledger, uid) == "done" for uid in names))
    assert [names[Path(job.out).parent.name] for job in bench.stand_in.jobs[1:]] == ["routed", "archive", "archive"]


def test_each_assessment_has_a_device_of_its_own_and_without_devices_all_go_on(bench):
    seen, go_on = {}, threading.Event()

    def assess(job, *, environment, **_):
        seen[Path(job.out).parent.name] = None if environment is None else environment["CUDA_VISIBLE_DEVICES"]
        go_on.wait(20)
        Path(job.out).mkdir(parents=True, exist_ok=True)
        (Path(job.out) / "assessment.json").write_text(json.dumps(bench.document("1.2")))
        return bench.document("1.2")

    node = started(bench, quick(bench, gpus=1), assess)
    uids = [give(bench, node.ledger, f"P{n}") for n in range(5)]
    bench.wait_until(lambda: len(seen) == 2)
    assert sorted(seen.values()) == ["", "0"]
    bench.wait_until(lambda: {record.resource for record in node.ledger.current_assessments()} == {"cpu", "gpu"})
    go_on.set()
    bench.stop(node)
    again = started(bench, quick(bench), assess)
    bench.wait_until(lambda: all(state(again.ledger, uid) == "done" for uid in uids))


class LeftBehind:
    """An engine of an earlier backup, with a workflow of an assessment that the ledger does not know."""

    def __init__(self) -> None:
        self.given_up: list[str] = []
        self.enqueued: list[str] = []

    def unfinished(self) -> list[Unfinished]:
        return [Unfinished("unknown", "dead")]

    def give_up(self, assessment_id: str) -> None:
        self.given_up.append(assessment_id)

    def enqueue(self, assessment_id: str, *_: object) -> None:
        self.enqueued.append(assessment_id)

    def over(self, _: object) -> dict[str, str]:
        return {}


def test_a_workflow_that_the_ledger_does_not_know_is_given_up_and_stops_nothing(bench, ledger):
    claims = Claims(ledger, WorkerRecord("me", "host", "1", 0.0, 1, 0))
    claims.enter(alone=True)
    station = Station(bench.settings, ledger, claims)
    engine = LeftBehind()
    give(bench, ledger, "P1")
    Coordinator(station, Order(1, "1"), engine, Attempts(station, bench.stand_in)).coordinate()
    assert engine.given_up == ["unknown"]
    assert len(engine.enqueued) == 1


@pytest.mark.parametrize(
    ("places", "queued", "resource"),
    [
        ([(1, 0)], {}, "cpu"),
        ([(1, 1)], {}, "gpu"),
        ([(1, 1)], {"gpu": 1}, "cpu"),
        ([(1, 0), (0, 2)], {"gpu": 1}, "gpu"),
        ([(4, 1)], {"gpu": 1, "cpu": 2}, "cpu"),
        ([], {}, "cpu"),
    ],
)
def test_the_resource_with_the_shortest_wait_is_taken(places, queued, resource):
    workers = [WorkerRecord(str(n), "host", "1", 0.0, cpus, gpus) for n, (cpus, gpus) in enumerate(places)]
    assert least_loaded(workers, queued) == resource
