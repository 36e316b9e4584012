"""A result counts as sent only once the peer has committed itself, on whatever association, also after a restart."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from dicom_node.exchange import commitment
from dicom_node.exchange.answers import NoAnswer
from dicom_node.exchange.commitment import Commitment, CommitmentReports, take_report
from dicom_node.exchange.commitment_report import CommitmentReport
from dicom_node.records import AssessmentRecord, Send
from dicom_node.settings import Destination


class Archive:
    """A storage commitment provider that reports on the association by which it was asked."""

    def __init__(self, port: int) -> None:
        self.destination = Destination("ARCHIVE", "127.0.0.1", port, storage_commitment=True)
        self.transactions: list[Dataset] = []
        self.status = 0x0000
        self.lacks: set[str] = set()
        self.reports = True
        ae = AE(ae_title="ARCHIVE")
        ae.add_supported_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_N_ACTION, self._on_action), (evt.EVT_DIMSE_SENT, self._on_sent)]
        self._server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)

    def _on_action(self, event: Any) -> tuple[int, None]:
        if self.status == 0:
            self.transactions.append(event.action_information)
        return self.status, None

    def _on_sent(self, event: Any) -> None:
        if type(event.message).__name__ != "N_ACTION_RSP" or self.status or not self.reports:
            return
        asked = self.transactions[-1]
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        report.ReferencedSOPSequence = [
            x for x in asked.ReferencedSOPSequence if x.ReferencedSOPInstanceUID not in self.lacks
        ]
        # a thread, as the association goes on only once this handler has returned
        threading.Thread(target=self._report, args=(event.assoc, report), daemon=True).start()

    def _report(self, association: Any, report: Dataset) -> None:
        event_type = 2 if self.lacks else 1
        association.send_n_event_report(
            report, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )

    def stop(self) -> None:
        self._server.shutdown()


@pytest.fixture
def archive(bench):
    archive = Archive(bench.free_port())
    yield archive
    archive.stop()


def stored(bench, ledger, destination: Destination) -> Send:
    """A send that waits for commitment."""
    ledger.queue(AssessmentRecord("1", "1.2", "plan", revision=1, number=1, priority=1))
    ledger.ended("1", "done", document={}, send_to=[destination.name])
    bench.set_send(ledger, "1", "stored")
    return ledger.owed()[0]


def outcome(ledger) -> tuple[str, str]:
    (send,) = ledger.sends("1")
    return send.state, send.text


@pytest.mark.parametrize(("lacks", "state"), [(0, "sent"), (1, "failed")])
def test_a_report_on_the_association_that_asked_is_taken(ledger, archive, files, bench, lacks, state):
    archive.lacks = {bench.uid_of("P1", "result", number) for number in range(lacks)}
    owed = stored(bench, ledger, archive.destination)
    assert Commitment(ledger, "NODE").seek(owed, archive.destination, files) == (state == "sent")
    assert outcome(ledger)[0] == state


def test_a_refused_request_leaves_the_result_stored_to_be_asked_again(ledger, archive, files, bench):
    archive.status = 0x0213
    owed = stored(bench, ledger, archive.destination)
    with pytest.raises(NoAnswer, match="ARCHIVE answered 0x0213"):
        Commitment(ledger, "NODE").seek(owed, archive.destination, files)
    assert outcome(ledger)[0] == "stored"
    assert CommitmentReports(ledger).last_asked_at(owed) is None


@pytest.mark.parametrize("problem", [RuntimeError("must be established"), KeyboardInterrupt(), OSError("disk")])
def test_a_request_that_ends_otherwise_is_asked_again_at_once(ledger, archive, files, bench, monkeypatch, problem):
    def failing(*_: Any, **__: Any) -> None:
        raise problem

    owed = stored(bench, ledger, archive.destination)
    with monkeypatch.context() as patched:
        patched.setattr(commitment, "ask_commitment", failing)
        with pytest.raises(type(problem)):
            Commitment(ledger, "NODE").seek(owed, archive.destination, files)
    assert Commitment(ledger, "NODE").seek(owed, archive.destination, files)


def test_a_node_that_was_killed_while_it_asked_asks_again_and_takes_the_late_report(ledger, archive, bench):
    owed = stored(bench, ledger, archive.destination)
    uids = [bench.uid_of("P1", "result", number) for number in range(3)]
    reports = CommitmentReports(ledger)
    reports.asking("1.2.3", owed, uids)  # as far as it came
    assert reports.last_asked_at(owed) is None
    assert reports.reported(CommitmentReport("1.2.3", frozenset(uids), {}))
    reports.asked("1.2.3")  # an answer that is overtaken by the report changes nothing
    assert outcome(ledger)[0] == "sent"
    assert reports.last_asked_at(owed) is None


def test_a_report_on_another_association_is_awaited_across_a_restart(monkeypatch, bench, archive, files):
    monkeypatch.setattr(commitment, "_REPORT_HERE_WITHIN_S", 0.1)
    archive.reports = False
    first = bench.ledger()
    owed = stored(bench, first, archive.destination)
    assert not Commitment(first, "NODE").seek(owed, archive.destination, files)
    first.close()
    again = bench.ledger()
    try:
        assert not Commitment(again, "NODE").seek(owed, archive.destination, files)
        (asked,) = archive.transactions  # once: its report is still to come
        assert len(asked.ReferencedSOPSequence) == 3
        reports = CommitmentReports(again)
        uids = {str(item.ReferencedSOPInstanceUID) for item in asked.ReferencedSOPSequence}
        assert not reports.reported(CommitmentReport("1.2.3", frozenset(uids), {}))
        assert reports.reported(CommitmentReport(str(asked.TransactionUID), frozenset(uids), {}))
        assert outcome(again) == ("sent", "3 objects, committed")
        assert again.owed() == []
    finally:
        again.close()


def test_what_is_not_committed_is_owed_again(monkeypatch, ledger, archive, files, bench):
    monkeypatch.setattr(commitment, "_REPORT_HERE_WITHIN_S", 0.1)
    archive.reports = False
    owed = stored(bench, ledger, archive.destination)
    Commitment(ledger, "NODE").seek(owed, archive.destination, files)
    (asked,) = archive.transactions
    failed, silent, kept = asked.ReferencedSOPSequence
    failed.FailureReason = 0x0112
    report = Dataset()
    report.TransactionUID = asked.TransactionUID
    report.ReferencedSOPSequence, report.FailedSOPSequence = [kept], [failed]
    assert silent not in report.ReferencedSOPSequence
    assert take_report(report, CommitmentReports(ledger).reported) == 0x0000
    state, text = outcome(ledger)
    assert state == "failed"
    assert text.startswith("not committed: 2 of 3 objects (")
    assert [send.state for send in ledger.owed()] == ["failed"]
    report.TransactionUID = "1.2.3"
    assert take_report(report, CommitmentReports(ledger).reported) == 0x0110
