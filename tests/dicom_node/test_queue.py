"""What becomes of an answer: recorded whatever the database does meanwhile, and owed only while it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from dicom_node.back_off import BackOff
from dicom_node.identity import identity_of
from dicom_node.plans import register_plan
from dicom_node.queue import Tools
from dicom_node.refusal import Refused
from dicom_node.send import NotSent
from dicom_node.serve import Node
from dicom_node.settings import Destination
from dicom_node.worklist import Entry, worklist


@pytest.fixture
def node(bench):
    """A worker with one destination that takes everything."""
    settings = replace(bench.settings, send=(Destination("PACS", "127.0.0.1", 104),))
    tools = Tools(assess=bench.stand_in, send=lambda files, *_, **__: len(files))
    node = Node(settings, parts=("worker",), tools=tools)
    bench.nodes.append(node)
    node.start()
    return node


def answer_with_objects(bench):
    def answer(job):
        (Path(job.out) / "dicom").mkdir(parents=True)
        (Path(job.out) / "dicom" / "report.dcm").touch()
        return bench.document("1.2")

    return answer


def arrive(bench, node, dataset) -> None:
    path = bench.folder / f"{dataset.SOPInstanceUID}.dcm"
    path.write_bytes(bench.file_bytes(dataset))
    node.ledger.arrived(identity_of(dataset), path)


def give_follow_up(bench, node) -> None:
    patient = bench.patient()
    register_plan(patient.plan_folder(bench.folder / "plan"), node.ledger, node.settings.data_folder)
    for study, date in (("baseline", "20260105"), ("followup", "20260215")):
        for dataset in patient.slices(study, date):
            arrive(bench, node, dataset)


def entry(bench, node) -> Entry:
    uid = bench.patient().study_uid("followup")
    return next(entry for entry in worklist(node.ledger) if entry.study.study_instance_uid == uid)


def failing(monkeypatch, node, problem: Exception, times: int) -> list[str]:
    """Makes recording an end fail so many times; the states that were to be recorded."""
    tried: list[str] = []
    ended = node.ledger.ended

    def fail_first(assessment_id, state, **values):
        tried.append(state)
        if len(tried) <= times:
            raise problem
        return ended(assessment_id, state, **values)

    monkeypatch.setattr(node.ledger, "ended", fail_first)
    return tried


@pytest.mark.parametrize(
    "problem", [OperationalError("UPDATE", {}, Exception("the server went away")), RuntimeError("a bug")]
)
def test_a_whole_result_is_recorded_and_owed_though_recording_failed_at_first(monkeypatch, bench, node, problem):
    bench.stand_in.answer = answer_with_objects(bench)
    tried = failing(monkeypatch, node, problem, times=1)
    give_follow_up(bench, node)
    record = bench.wait_until(lambda: (e := entry(bench, node)).state in ("done", "failed") and e.record)
    assert (record.state, record.document) == ("done", bench.document("1.2"))
    assert tried == ["done", "done"]
    assert len(bench.stand_in.jobs) == 1
    bench.wait_until(lambda: [send.state for send in node.ledger.sends(record.assessment_id)] == ["sent"])


def test_a_disk_that_takes_no_results_is_waited_for(monkeypatch, bench, node):
    """However often: it is the disk that fails, and no study is set aside for it."""
    monkeypatch.setattr("dicom_node.attempt._AGAIN", BackOff(0.01, 0.02))

    def answer(job):
        if len(bench.stand_in.jobs) <= 3 * node.settings.worker.attempts:
            raise Refused("cannot_write_results", "The results could not be written: No space left on device.")
        return answer_with_objects(bench)(job)

    bench.stand_in.answer = answer
    give_follow_up(bench, node)
    record = bench.wait_until(lambda: (e := entry(bench, node)).state in ("done", "failed", "refused") and e.record)
    assert (record.state, record.token) == ("done", 1)
    assert len(bench.stand_in.jobs) == 3 * node.settings.worker.attempts + 1


def test_an_answer_that_is_gone_says_why_it_could_not_be_recorded(monkeypatch, bench, node):
    def answer(_):
        raise ValueError("nothing to see")

    bench.stand_in.answer = answer
    failing(monkeypatch, node, RuntimeError("a bug"), times=1)
    give_follow_up(bench, node)
    bench.wait_until(lambda: entry(bench, node).state == "failed")
    assert entry(bench, node).record.text == "the answer could not be recorded: a bug"


def test_a_bug_of_the_worker_leaves_its_traceback_for_support_and_one_line_for_the_interface(bench, node):
    def answer(_):
        raise ValueError("nothing to see")

    bench.stand_in.answer = answer
    give_follow_up(bench, node)
    bench.wait_until(lambda: entry(bench, node).state == "failed")
    assert "Traceback" in entry(bench, node).record.text
    assert entry(bench, node).as_json()["error"] == {"code": "failed", "text": "ValueError: nothing to see"}


@pytest.mark.parametrize("study", ["followup", "baseline"])
def test_what_was_assessed_before_a_late_slice_came_is_not_owed(bench, node, study):
    """A `complete` from part of a study must not reach the PACS."""
    as_always = answer_with_objects(bench)
    running: list[str] = []

    def answer(job):
        running.extend(record.assessment_id for record in node.ledger.current_assessments())
        if len(bench.stand_in.jobs) == 1:
            arrive(bench, node, bench.patient().slice(study, "20260105" if study == "baseline" else "20260215", 99))
        return as_always(job)

    bench.stand_in.answer = answer
    give_follow_up(bench, node)
    record = bench.wait_until(lambda: (e := entry(bench, node)).state == "done" and e.record.number == 2 and e.record)
    first, second = running
    assert second == record.assessment_id
    assert node.ledger.sends(first) == []
    bench.wait_until(lambda: [send.state for send in node.ledger.sends(record.assessment_id)] == ["sent"])


def test_what_was_superseded_before_the_peer_took_it_is_not_owed_any_more(bench):
    settings = replace(bench.settings, send=(Destination("PACS", "127.0.0.1", 104),))
    away = True

    def send(files, *_, **__):
        if away:
            raise NotSent("nobody there")
        return len(files)

    node = Node(
        settings, parts=("worker",), tools=Tools(assess=bench.stand_in, send=send, back_off=BackOff(0.01, 0.05))
    )
    bench.nodes.append(node)
    node.start()
    bench.stand_in.answer = answer_with_objects(bench)
    give_follow_up(bench, node)
    first = bench.wait_until(lambda: [x.assessment_id for x in node.ledger.owed()])
    arrive(bench, node, bench.patient().slice("followup", "20260215", 99))
    bench.wait_until(lambda: (e := entry(bench, node)).state == "done" and e.record.number == 2)
    second = bench.wait_until(lambda: [x.assessment_id for x in node.ledger.owed()])
    assert len(second) == 1
    assert second != first
    away = False
    bench.wait_until(lambda: node.ledger.owed() == [])
    assert [x.state for x in node.ledger.sends(first[0])] == ["failed"]


def test_a_queue_that_cannot_be_used_is_refused_and_a_mended_one_starts(bench):
    queue = bench.settings.data_folder / "queue.sqlite"
    queue.parent.mkdir()
    queue.write_bytes(b"no database " * 1000)
    with pytest.raises(Refused, match=r"queue.sqlite cannot be used \(file is not a database\); restore ") as refused:
        Node(bench.settings, parts=("worker",)).start()
    assert refused.value.code == "database_unreachable"
    queue.unlink()
    bench.node("worker")


def test_a_database_that_cannot_be_opened_asks_for_its_folder(bench):
    (bench.settings.data_folder / "ledger.sqlite").mkdir(parents=True)
    with pytest.raises(Refused, match=r"\(unable to open database file\); check that its folder can be written"):
        Node(bench.settings, parts=("worker",))
