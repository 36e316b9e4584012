"""The whole way on one machine: a made patient, a node, the studies sent over the network, the verdict."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.batch import Progress
from dicom_node.phantom_series import write_phantom
from dicom_node.plans import register_plan
from dicom_node.refusal import Refused
from dicom_node.send import NotSent, send_files
from dicom_node.serve import Node
from dicom_node.settings import Destination, ListenerSettings, ReviewSettings, Settings
from dicom_node.worklist import Entry, worklist

_QUIET_TIME_S = 2.0
_TIME_LIMIT_S = 600.0
_LOOK_EVERY_S = 0.2
_ENDED = ("done", "refused", "failed")


@dataclass(frozen=True)
class DemoResult:
    """document: the `assessment.json` of the latest follow-up; page: where the running node shows it."""

    document: Mapping[str, Any]
    result_folder: Path
    page: str


@contextmanager
def run_demo(folder: Path, progress: Progress) -> Iterator[DemoResult]:
    """What the made patient's follow-up was found to be; the node runs until the context is left.

    folder: gets the patient (`patient/`) and the node's data (`node/`). Raises `Refused` when the route is broken.
    """
    progress.begin("demo", 5)
    patient = write_phantom(folder / "patient")
    progress.step("made a patient as DICOM")
    settings = Settings(
        data_folder=folder / "node",
        listener=ListenerSettings(port=_free_port(), quiet_time_s=_QUIET_TIME_S, minimum_free_gib=0.0),
        review=ReviewSettings(port=_free_port()),
    )
    node = Node(settings)
    node.start()
    try:
        progress.step(f"started a node: {settings.listener.ae_title} on port {settings.listener.port}")
        plan = register_plan(patient.plan, node.ledger, settings.data_folder)
        progress.step(f"added the plan {plan.plan_id}")
        ourselves = Destination(settings.listener.ae_title, settings.listener.host, settings.listener.port)
        sent = 0
        for study in (patient.baseline, *patient.followups):
            sent += _send(sorted(study.rglob("*.dcm")), ourselves)
        progress.step(f"sent {sent} images by C-STORE")
        entry = _wait_for_the_last(node, plan.plan_id, len(patient.followups))
        progress.step("assessed")
        if entry.record is None or entry.state != "done":
            error = entry.as_json()["error"] or {"text": f"it is still {entry.state}"}
            raise Refused("demo_failed", f"The demo's follow-up was not assessed: {error['text']}")
        page = settings.review.url
        yield DemoResult(entry.document, settings.data_folder / entry.record.folder, page)
    finally:
        node.stop()


def _send(files: list[Path], destination: Destination) -> int:
    try:
        return send_files(files, destination, calling_ae_title="DEMO")
    except NotSent as problem:
        raise Refused("demo_failed", f"The demo's images could not be sent: {problem}.") from None


def _wait_for_the_last(node: Node, plan_id: str, followups: int) -> Entry:
    """The plan's latest follow-up, once all have ended or the time is up."""
    deadline = time.monotonic() + _TIME_LIMIT_S
    while True:
        states = ("baseline", "before_procedure", "no_images")
        mine = [e for e in worklist(node.ledger) if e.plan_id == plan_id and e.state not in states]
        mine.sort(key=lambda entry: entry.study.acquired)
        ended = len(mine) == followups and all(entry.state in _ENDED for entry in mine)
        if ended or time.monotonic() > deadline:
            if not mine:
                raise Refused("demo_failed", "The demo's follow-up did not arrive.")
            return mine[-1]
        time.sleep(_LOOK_EVERY_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
