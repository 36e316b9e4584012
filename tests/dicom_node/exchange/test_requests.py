"""What was asked is kept, and asked again ever more seldom; what was answered, seldom at once."""

from __future__ import annotations

import pytest

from dicom_node.exchange.requests import Question, Requests, requests_by_subject
from dicom_node.peers import FetchSettings

QUESTION = Question("PACS@host:104", "baseline", "1.2.3")


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def requests(bench, clock):
    ledger = bench.ledger(clock)
    yield Requests(ledger, FetchSettings(first_retry_s=10, longest_retry_s=100))
    assert set(requests_by_subject(ledger)) <= {"1.2.3"}
    ledger.close()


def test_tries_become_rarer_and_never_cease(requests, clock):
    waits_s = []
    for _ in range(200):
        assert QUESTION not in requests.waiting()
        requests.record(QUESTION, "not_there", "PACS does not have it.")
        assert requests.waiting() == {QUESTION}
        waits_s.append(requests.last(QUESTION).next_at - clock.now_s)
        clock.now_s += waits_s[-1]
    assert waits_s[:6] == [10, 20, 40, 80, 100, 100]
    assert set(waits_s[6:]) == {100}
    assert requests.last(QUESTION).tries == 200


def test_an_answer_ends_the_series_of_tries(requests, clock):
    requests.record(QUESTION, "no_answer", "")
    requests.record(QUESTION, "answered", "")
    assert requests.last(QUESTION).next_at == clock.now_s + 100
    requests.record(QUESTION, "no_answer", "")
    assert requests.last(QUESTION).next_at == clock.now_s + 10
    requests.forget("baseline", "1.2.3")
    assert requests.last(QUESTION) is None


def test_a_clock_that_is_set_back_puts_nothing_off(requests, clock):
    requests.record(QUESTION, "answered", "")
    assert not requests.last(QUESTION).is_due(clock.now_s)
    clock.now_s -= 500
    assert requests.last(QUESTION).is_due(clock.now_s)
    assert requests.waiting() == set()
