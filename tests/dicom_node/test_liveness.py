"""Who has fallen silent: told by counters and one's own clock, so that no other clock can be wrong."""

from __future__ import annotations

import pytest

from dicom_node.liveness import Watch, new_worker_id, on_the_same_machine
from dicom_node.records import WorkerRecord


def worker(beat: int, name: str = "other") -> WorkerRecord:
    return WorkerRecord(name, "host", "1", 0.0, 1, 0, beat)


@pytest.fixture
def watch() -> Watch:
    return Watch(lost_after_s=20.0, look_every_s=5.0)


def test_a_counter_that_stands_still_is_silence_and_one_that_advances_is_not(watch):
    silent = {}
    for now_s in range(0, 60, 5):
        found = watch.look([worker(3, "dead"), worker(now_s, "alive")], float(now_s))
        silent[now_s] = [w.worker_id for w in found]
    assert [now_s for now_s, names in silent.items() if names] == list(range(20, 60, 5))
    assert silent[20] == ["dead"]


def test_one_who_was_not_looking_has_seen_no_silence(watch):
    """It was stopped itself, or the database was away for all: nobody could show a sign of life."""
    assert watch.look([worker(1)], 0.0) == []
    assert watch.look([worker(1)], 500.0) == []
    assert watch.look([worker(2)], 505.0) == []
    assert watch.look([worker(2)], 520.0) == []


def test_a_sign_of_life_begins_the_count_anew(watch):
    for now_s, beat in ((0, 1), (10, 1), (15, 2), (20, 2), (25, 2), (30, 2)):
        assert watch.look([worker(beat)], float(now_s)) == []
    assert watch.look([worker(2)], 35.0) == [worker(2)]


def test_a_worker_id_is_never_used_again():
    first, second = new_worker_id(), new_worker_id()
    assert first != second
    assert len(first) <= 128
    assert on_the_same_machine(first, second)
    assert not on_the_same_machine(first, "host_0_1234")
    assert not on_the_same_machine("a_0_1", "b_0_2")
