"""Rounds of asking: a PACS or study at which something fails holds no other up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from dicom_node.exchange import fetcher
from dicom_node.exchange.answers import NoAnswer, RemoteStudy, Wanted
from dicom_node.exchange.fetcher import Fetcher
from dicom_node.exchange.lacking import Lack
from dicom_node.exchange.requests import requests_by_subject
from dicom_node.ledger import Ledger
from dicom_node.peers import Pacs
from dicom_node.plans import register_plan


@pytest.fixture
def asked() -> list[str]:
    """The baselines that the PACS was asked for, in order."""
    return []


@pytest.fixture
def make(bench, ledger, asked, monkeypatch) -> Callable[..., Fetcher]:
    def make(problems: dict[str, Exception]) -> Fetcher:
        class Query:
            def studies(self, *, study_instance_uid: str) -> list[RemoteStudy]:
                asked.append(study_instance_uid)
                if study_instance_uid in problems:
                    raise problems[study_instance_uid]
                return []

        @contextmanager
        def asking(_pacs: Pacs, _title: str) -> Iterator[Query]:
            yield Query()

        monkeypatch.setattr(fetcher, "asking", asking)
        for name in ("P1", "P2", "P3"):
            register_plan(bench.patient(name).plan_folder(bench.folder / name), ledger, bench.settings.data_folder)
        settings = replace(bench.settings, pacs=(Pacs("PACS", "127.0.0.1", 104),))
        return Fetcher(settings, ledger, lambda *_, **__: None, clock=lambda: 0.0)

    return make


def states(ledger: Ledger) -> list[str]:
    return sorted(request.state for requests in requests_by_subject(ledger).values() for request in requests)


def test_a_fault_at_one_study_is_recorded_and_the_next_is_asked_for(bench, ledger, make, asked):
    rounds = make({bench.patient("P1").study_uid("baseline"): IndexError("nobody thought of it")})
    rounds.look()
    assert len(asked) == 3
    assert states(ledger) == ["fault", "not_there", "not_there"]
    rounds.look()
    assert len(asked) == 3  # each waits for its next try


def test_a_silent_pacs_is_spared(ledger, make, asked, bench):
    uids = [bench.patient(name).study_uid("baseline") for name in ("P1", "P2", "P3")]
    rounds = make(dict.fromkeys(uids, NoAnswer("down")))
    rounds.look()
    rounds.look()
    assert len(asked) == 1
    assert states(ledger) == ["no_answer"]


def test_a_round_that_is_stopped_goes_no_further(make, asked):
    make({}).look(lambda: len(asked) == 2)
    assert len(asked) == 2


def test_what_is_being_fetched_when_the_worker_stops_is_left_to_another(make, asked, ledger, monkeypatch, bench):
    stopped: list[bool] = []
    brought: list[str] = []

    class Query:
        def studies(self, *, study_instance_uid: str) -> list[RemoteStudy]:
            asked.append(study_instance_uid)
            return [RemoteStudy(study_instance_uid, "P1", "", "20260105")]

    @contextmanager
    def asking(_pacs: Pacs, _title: str) -> Iterator[Query]:
        yield Query()

    def bring(_pacs: Pacs, _title: str, wanted: Wanted, _deposit: object) -> None:
        brought.append(wanted.series_instance_uid)
        stopped.append(True)

    rounds = make({})
    monkeypatch.setattr(fetcher, "asking", asking)
    monkeypatch.setattr(fetcher, "bring", bring)
    monkeypatch.setattr(fetcher, "lacking", lambda *_: [Lack("1.1", ("1",), True), Lack("1.2", ("2",), True)])
    rounds.look(lambda: bool(stopped))
    assert brought == ["1.1"]
    assert asked == [bench.patient("P1").study_uid("baseline")]
    assert states(ledger) == []  # nothing is put off
