"""What is owed is looked at again right before it is sent, and never sent in quick succession."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from dicom_node.back_off import BackOff
from dicom_node.claims import Claims, Station
from dicom_node.outbox import Outbox
from dicom_node.records import AssessmentRecord, WorkerRecord
from dicom_node.settings import Destination

PACS = Destination("PACS", "127.0.0.1", 104)


@pytest.fixture
def claims(ledger) -> Claims:
    claims = Claims(ledger, WorkerRecord("me", "host", "1", 0.0, 1, 0))
    claims.enter(alone=True)
    return claims


@pytest.fixture
def owe(bench, ledger) -> Callable[..., None]:
    """Records assessments with a result that is owed to a destination, by study."""

    def owe(*studies: str, to: Destination = PACS) -> None:
        for study in studies:
            ledger.queue(AssessmentRecord(study, study, "plan", 1, 1, 1, folder=study))
            ledger.ended(study, "done", document={}, send_to=[to.name])
            (bench.settings.data_folder / study / "dicom").mkdir(parents=True)
            (bench.settings.data_folder / study / "dicom" / "report.dcm").touch()

    return owe


@pytest.fixture
def outbox(bench, ledger, claims) -> Callable[..., Outbox]:
    def outbox(send: Callable[..., int], back_off: BackOff | None = None) -> Outbox:
        settings = replace(bench.settings, send=(PACS,))
        return Outbox(Station(settings, ledger, claims), back_off=back_off or BackOff(600, 600), send=send)

    return outbox


def test_what_is_superseded_while_another_is_sent_is_not_sent(ledger, owe, outbox):
    owe("first", "second")
    sent = []

    def send(files, *_: Any, **__: Any) -> int:
        sent.append(files[0].parent.parent.name)
        ledger.queue(AssessmentRecord("third", "second", "plan", 2, 2, 1))
        return 1

    outbox(send)._serve(PACS, {})
    assert sent == ["first"]
    assert [send.state for send in ledger.sends("second")] == ["pending"]


def test_only_who_holds_the_lease_begins_to_send(ledger, owe, claims):
    owe("first")
    (owed,) = ledger.owed()
    other = Claims(ledger, WorkerRecord("other", "host", "1", 0.0, 1, 0))
    other.enter(alone=False)
    assert claims.lease("send PACS")
    assert not other.begin_send(owed, lease="send PACS", at=1.0)
    assert claims.begin_send(owed, lease="send PACS", at=1.0)
    assert [send.state for send in ledger.owed()] == ["sending"]
    assert claims.sent(owed, lease="send PACS", state="sent", text="", at=2.0)
    assert not claims.begin_send(owed, lease="send PACS", at=3.0)


def test_a_try_that_cannot_be_recorded_is_not_made_again_at_once(ledger, owe, outbox, claims, monkeypatch):
    owe("first")
    tries = []

    def full(*_: Any, **__: Any) -> bool:
        raise OperationalError("UPDATE", {}, Exception("database or disk is full"))

    monkeypatch.setattr(claims, "sent", full)
    serving, delays = outbox(lambda files, *_, **__: tries.append(files) or 1), {}
    with pytest.raises(OperationalError):
        serving._serve(PACS, delays)
    serving._serve(PACS, delays)
    assert len(tries) == 1
    with ledger.transaction() as connection:
        connection.exec_driver_sql("DELETE FROM sends")
    serving._serve(PACS, delays)
    assert delays == {}


def test_what_is_owed_to_others_is_not_looked_at(ledger, owe):
    other = Destination("OTHER", "127.0.0.1", 105)
    owe("first")
    owe("second", to=other)
    assert sorted(ledger.destinations_owed()) == [other.name, PACS.name]
    assert [owed.assessment_id for owed in ledger.owed([PACS.name])] == ["first"]


def test_a_lease_that_is_held_is_not_written_again(ledger, claims):
    assert claims.lease("send PACS")
    statements: list[str] = []
    event.listen(ledger.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    assert claims.lease("send PACS")
    assert statements
    assert all(statement.startswith("SELECT") for statement in statements)
