"""An archive through the same queue as routed studies: each follow-up once and in time order, however often started."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from dicom_node.archive import Archive, enter_archive, files_of
from dicom_node.ledger import Ledger, open_ledger
from dicom_node.queue import Tools
from dicom_node.records import ROUTED_PRIORITY
from dicom_node.refusal import Refused
from dicom_node.routing import Order, StudyIndex, due
from dicom_node.schema import reaching
from dicom_node.serve import WORKER_ONLY, Node
from dicom_node.settings import Settings
from dicom_node.withdrawing import withdrawals
from dicom_node.worklist import Entry, worklist

_LOOK_EVERY_S = 0.3
_WHY_NOT = {
    "no_plan": "No plan for this patient was found.",
    "baseline": "It is the baseline scan of a plan.",
    "before_procedure": "It was taken before the procedure.",
    "no_images": "It holds no CT or MR images.",
    "waiting_for_baseline": "The baseline scan that its plan names was not found.",
}


class Progress(Protocol):
    """Shows how far a long work is. total: how many steps there will be; item: what the step just done was."""

    def begin(self, what: str, total: int) -> None: ...
    def step(self, item: str = "") -> None: ...


@dataclass(frozen=True)
class BatchReport:
    """Every follow-up that was assessed, now or earlier, and everything else with the reason."""

    assessed: list[dict[str, Any]]
    skipped: list[dict[str, Any]]
    plans_refused: int = 0

    @property
    def refused(self) -> int:
        """How many follow-ups were refused."""
        return self._count("refused")

    @property
    def failed(self) -> int:
        """How many follow-ups could not be assessed for a fault of ours; the next run tries them once more."""
        return self._count("failed")

    def _count(self, state: str) -> int:
        return sum(1 for item in self.skipped if item.get("state") == state)


def run_batch(source: Path, settings: Settings, progress: Progress, *, tools: Tools | None = None) -> BatchReport:
    """The report, after everything in the archive that can be assessed has been.

    Results and state live in the data folder of the settings. What is done there already is not done again; what
    failed is tried once more. If a node already works on that data folder, it does the work. Raises `Refused` for a
    source in which there is neither DICOM nor a plan, and where the database cannot be used.
    """
    if source.is_file() and source.name.upper() == "DICOMDIR":
        source = source.parent
    ledger = open_ledger(settings)
    try:
        with reaching(settings.ledger_url):
            files = files_of(source, leave_out=settings.data_folder)
            progress.begin("reading the archive", len(files))
            archive = enter_archive(files, ledger, settings.data_folder, step=progress.step)
            if not archive.studies and not archive.plans:
                raise Refused("nothing_found", f"There is neither a DICOM study nor a plan in {source}.")
            ledger.reopen_failed()
            _assess_all(archive, settings, ledger, progress, tools)
            return _report(archive, ledger, settings.data_folder)
    finally:
        ledger.close()


def _assess_all(archive: Archive, settings: Settings, ledger: Ledger, progress: Progress, tools: Tools | None) -> None:
    """Wait until nothing of the archive is due any more, with a worker of our own unless one is running.

    And until every result was sent or at least tried; a node that runs later goes on with what a PACS did not take.
    """
    order = Order(ROUTED_PRIORITY, version("marginwatch"))
    if not _due(archive, ledger, order) and not _untried(ledger, settings):
        return
    with _worker(settings, tools):
        mine = _entries(archive, ledger)
        progress.begin("assessing", sum(1 for entry in mine if _is_open(entry)))
        told = {_key(entry) for entry in mine if not _is_open(entry)}
        ongoing = True
        while ongoing:
            time.sleep(_LOOK_EVERY_S)
            ongoing = _due(archive, ledger, order) or _untried(ledger, settings)
            for entry in _entries(archive, ledger):
                if not _is_open(entry) and _key(entry) not in told:
                    told.add(_key(entry))
                    progress.step(f"{entry.study.patient_id} {entry.study.acquired}: {entry.outcome or entry.state}")


@contextmanager
def _worker(settings: Settings, tools: Tools | None) -> Iterator[None]:
    """A worker on the data folder: our own, or that of a node which is running there already."""
    node = Node(settings, parts=WORKER_ONLY, tools=tools)
    try:
        node.start()
    except Refused as refused:
        if refused.code != "worker_running":
            raise
        yield
        return
    try:
        yield
    finally:
        node.stop()


def _due(archive: Archive, ledger: Ledger, order: Order) -> bool:
    """Whether an assessment is due for a plan that has a follow-up in the archive."""
    studies = StudyIndex(s for s in ledger.studies() if s.study_instance_uid in archive.studies)
    plans = {plan.plan_id for plan in ledger.plans() if plan.plan_id in archive.plans or studies.followups(plan)}
    return any(record.plan_id in plans for record in due(ledger, order))


def _untried(ledger: Ledger, settings: Settings) -> bool:
    """Whether something is owed to one of the destinations that has not been tried to the end yet."""
    names = {destination.name for destination in settings.send}
    if withdrawals(ledger)["owed"]:
        return True
    return any(send.state in ("pending", "sending") and send.destination in names for send in ledger.owed())


def _entries(archive: Archive, ledger: Ledger) -> list[Entry]:
    return [entry for entry in worklist(ledger) if entry.study.study_instance_uid in archive.studies]


def _is_open(entry: Entry) -> bool:
    return entry.state in ("receiving", "waiting_for_earlier", "queued", "running")


def _key(entry: Entry) -> tuple[str, str | None]:
    return entry.study.study_instance_uid, entry.record.assessment_id if entry.record else None


def _report(archive: Archive, ledger: Ledger, data_folder: Path) -> BatchReport:
    assessed, skipped = [], []
    for entry in _entries(archive, ledger):
        shown = entry.as_json()
        if entry.record is not None and entry.state == "done":
            shown["result_folder"] = str(data_folder / entry.record.folder)
            assessed.append(shown)
            continue
        why = shown["error"] or {"code": entry.state, "text": _WHY_NOT.get(entry.state, "It was not assessed.")}
        item = {"study_instance_uid": entry.study.study_instance_uid, "patient_id": entry.study.patient_id}
        skipped.append(item | {"plan_id": entry.plan_id, "state": entry.state} | why)
    skipped += [{"path": str(item.path), "code": item.code, "text": item.text} for item in archive.passed_over]
    return BatchReport(assessed, skipped, sum(1 for item in archive.passed_over if item.is_plan))
