"""Sending results: each object once, in its own transfer syntax, with retries, recorded for the page."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from pynetdicom import AE, AllStoragePresentationContexts, evt

from dicom_node.back_off import BackOff
from dicom_node.identity import identity_of
from dicom_node.plans import register_plan
from dicom_node.records import Send
from dicom_node.send import NotSent, send_files
from dicom_node.settings import Destination
from dicom_node.worklist import worklist


class Pacs:
    """A storage provider that answers as it is told."""

    def __init__(self, port: int) -> None:
        self.destination = Destination("PACS", "127.0.0.1", port)
        self.received: list[str] = []
        self.statuses: list[int] = []
        ae = AE(ae_title="PACS")
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax)
        handlers = [(evt.EVT_C_STORE, self._on_store)]
        self._server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)

    def _on_store(self, event: Any) -> int:
        status = self.statuses.pop(0) if self.statuses else 0
        if status == 0:
            self.received.append(event.request.AffectedSOPInstanceUID)
        return status

    def stop(self) -> None:
        self._server.shutdown()


@pytest.fixture
def pacs(bench):
    pacs = Pacs(bench.free_port())
    yield pacs
    pacs.stop()


def written(bench, folder: Path, count: int = 3) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, dataset in enumerate(bench.patient().slices("result", "20260215", count=count)):
        files.append(folder / f"{number}.dcm")
        files[-1].write_bytes(bench.file_bytes(dataset))
    return files


def test_all_objects_arrive(bench, pacs):
    files = written(bench, bench.folder / "out")
    assert send_files(files, pacs.destination, calling_ae_title="NODE") == 3
    assert pacs.received == [bench.uid_of("P1", "result", number) for number in range(3)]


def test_a_refused_object_is_an_error_and_a_warning_is_not(bench, pacs):
    files = written(bench, bench.folder / "out")
    pacs.statuses = [0xB000]
    assert send_files(files, pacs.destination, calling_ae_title="NODE") == 3
    pacs.statuses = [0, 0xA700]
    with pytest.raises(NotSent, match="0xa700"):
        send_files(files, pacs.destination, calling_ae_title="NODE")


# pynetdicom leaves the socket of a failed connection to the garbage collector
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_a_peer_that_is_away_is_an_error(bench):
    files = written(bench, bench.folder / "out")
    with pytest.raises(NotSent, match="cannot be reached"):
        send_files(files, Destination("PACS", "127.0.0.1", bench.free_port()), calling_ae_title="NODE")
    gc.collect()


def assessed_follow_up(bench, *destinations: Destination):
    """A node that has assessed a follow-up with three result objects, and the assessment's record."""

    def answer(job):
        written(bench, Path(job.out) / "dicom")
        return bench.document("1.2")

    bench.stand_in.answer = answer
    patient = bench.patient("P2")
    node = bench.node("worker", send=destinations)
    register_plan(patient.plan_folder(bench.folder / "plan"), node.ledger, bench.settings.data_folder)
    for study, date in (("baseline", "20260105"), ("followup", "20260215")):
        for dataset in patient.slices(study, date):
            path = bench.folder / f"{dataset.SOPInstanceUID}.dcm"
            path.write_bytes(bench.file_bytes(dataset))
            node.ledger.arrived(identity_of(dataset), path)
    return node, bench.wait_until(lambda: worklist(node.ledger)[0].record)


def transfers(bench) -> list[str]:
    """The outcomes of transfers of P2's instances in the audit trail: 0 for success, 4 for a minor failure."""
    text = "".join(file.read_text() for file in sorted((bench.settings.data_folder / "audit").iterdir()))
    found = [
        ET.fromstring(line)
        for line in text.splitlines()
        if 'csd-code="110104"' in line and 'ParticipantObjectID="P2"' in line
    ]
    return [message.find("EventIdentification").get("EventOutcomeIndicator") for message in found]


def sent(node, record) -> Send | None:
    """The send that succeeded."""
    return next((send for send in node.ledger.sends(record.assessment_id) if send.state == "sent"), None)


def test_results_are_sent_again_until_the_peer_takes_them(bench, pacs):
    """More often than any fixed number of tries: a PACS may be away for days."""
    pacs.statuses = [0xA700] * 15
    node, record = assessed_follow_up(bench, pacs.destination)
    send = bench.wait_until(lambda: sent(node, record))
    assert send.text == "3 objects"
    assert len(pacs.received) == 3
    assert node.ledger.owed() == []
    bench.wait_until(lambda: transfers(bench).count("0") == 1)
    assert set(transfers(bench)) == {"4", "0"}
    assert json.loads((Path(bench.stand_in.jobs[0].out) / "assessment.json").read_text())["outcome"] == "complete"


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_asking_again_for_storage_commitment_is_no_transfer(bench, pacs):
    """This peer stores and knows nothing of storage commitment."""
    node, record = assessed_follow_up(bench, replace(pacs.destination, storage_commitment=True))
    told_at: set[float] = set()

    def asked_again() -> bool:
        told_at.update(send.at for send in node.ledger.sends(record.assessment_id) if "cannot be asked" in send.text)
        return len(told_at) > 3

    bench.wait_until(asked_again)
    assert len(pacs.received) == 3
    assert transfers(bench) == ["0"]
    bench.stop(node)
    gc.collect()  # pynetdicom leaves a socket open whose peer has reset it


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_a_failed_send_is_taken_up_again_when_the_node_starts(bench):
    away = Destination("PACS", "127.0.0.1", bench.free_port())
    node, record = assessed_follow_up(bench, away)
    failed = bench.wait_until(lambda: [s for s in node.ledger.sends(record.assessment_id) if s.state == "failed"])
    assert "cannot be reached" in failed[0].text
    bench.stop(node)
    pacs = Pacs(away.port)
    try:
        again = bench.node("worker", send=(away,))
        assert bench.wait_until(lambda: sent(again, record)).destination == away.name
        assert len(pacs.received) == 3
        assert len(bench.stand_in.jobs) == 1
    finally:
        pacs.stop()
    gc.collect()


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_a_peer_that_is_away_holds_no_other_up_and_its_corrected_address_gets_what_it_is_owed(bench, pacs):
    wrong = Destination("ARCHIVE", "127.0.0.1", bench.free_port())
    node, record = assessed_follow_up(bench, wrong, pacs.destination)
    assert bench.wait_until(lambda: sent(node, record)).destination == pacs.destination.name
    bench.stop(node)
    ledger = bench.ledger()
    assert [send.destination for send in ledger.owed()] == [wrong.name]
    ledger.close()
    corrected = Pacs(bench.free_port())
    try:
        again = bench.node("worker", send=(Destination("ARCHIVE", "127.0.0.1", corrected.destination.port),))
        bench.wait_until(lambda: again.ledger.owed() == [])
        assert len(corrected.received) == 3
    finally:
        corrected.stop()
    gc.collect()


def test_tries_become_rarer_but_never_cease():
    back_off = BackOff()
    waits_s = [back_off.after(0)]
    while len(waits_s) < 1000:
        waits_s.append(back_off.after(waits_s[-1]))
    assert waits_s[:4] == [2, 4, 8, 16]
    assert max(waits_s) == waits_s[-1] == 600
    assert sum(waits_s) > 6 * 24 * 3600
