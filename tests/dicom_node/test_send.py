"""Sending results: each object once, in its own transfer syntax, with retries, recorded for the page."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, AllStoragePresentationContexts, evt

from dicom_node.identity import identity_of
from dicom_node.plans import register_plan
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


def test_results_are_sent_again_until_the_peer_takes_them(bench, pacs):
    def answer(job):
        written(bench, Path(job.out) / "dicom")
        return bench.document("1.2")

    bench.stand_in.answer = answer
    pacs.statuses = [0xA700, 0xA700]
    patient = bench.patient("P2")
    ledger = bench.ledger()
    register_plan(patient.plan_folder(bench.folder / "plan"), ledger, bench.settings.data_folder)
    node = bench.node("worker", send=(pacs.destination,))
    for study, date in (("baseline", "20260105"), ("followup", "20260215")):
        for dataset in patient.slices(study, date):
            path = bench.folder / f"{dataset.SOPInstanceUID}.dcm"
            path.write_bytes(bench.file_bytes(dataset))
            node.ledger.arrived(identity_of(dataset), path)
    record = bench.wait_until(lambda: worklist(node.ledger)[0].record)
    (send,) = bench.wait_until(lambda: node.ledger.sends(record.assessment_id))
    assert (send.state, send.text) == ("sent", "3 objects")
    assert len(pacs.received) == 3
    assert json.loads((Path(bench.stand_in.jobs[0].out) / "assessment.json").read_text())["outcome"] == "complete"
    ledger.close()
