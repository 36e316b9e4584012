"""The durable queue: every due assessment is made once, whatever is killed in between. DBOS Transact, behind this file.

The ledger says what is due (`routing`), this runs it. An assessment is one workflow whose id is the assessment's: the
engine never starts it twice, and after a crash it goes on with the step that was not finished.
"""

from __future__ import annotations

import json
import logging
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSConfig, SetEnqueueOptions, SetWorkflowID, StepOptions
from sqlalchemy.exc import InterfaceError, OperationalError

from dicom_node.child import ChildBroke, Job, assess_in_child
from dicom_node.exchange.completeness import Completeness
from dicom_node.exchange.deposit import Keep
from dicom_node.exchange.fetcher import Fetcher
from dicom_node.exchange.rounds import Rounds
from dicom_node.exchange.stow import deliver
from dicom_node.ledger import Ledger
from dicom_node.outbox import BackOff, Outbox
from dicom_node.records import ENDED, AssessmentRecord
from dicom_node.refusal import Refused
from dicom_node.routing import Order, is_current, route
from dicom_node.schema import reaching
from dicom_node.settings import Settings
from dicom_node.store import Store
from dicom_node.withdrawing import superseded_by, withdraw

_LOG = logging.getLogger("marginwatch.queue")

#: The workflows' own version: a newer program goes on with an older one's unfinished work unless this changed.
_WORKFLOW_VERSION = "1"
_ROUTE_EVERY_S = 0.5
_POLL_EVERY_S = 0.25
_FETCH_EVERY_S = 1.0
#: After so many process deaths in the middle of one assessment, that assessment is taken for the cause.
_DEATHS_ALLOWED = 5
#: What a database raises that is away, locked or full for a while.
_DATABASE_AWAY = (OperationalError, InterfaceError)
_RECORD_AGAIN = BackOff(first_s=0.5, longest_s=30.0)


class _Stopping(BaseException):
    """The worker is going down: leave the workflow unfinished, it goes on at the next start."""


@dataclass(frozen=True)
class Tools:
    """What the worker calls; replaced in tests."""

    assess: Callable[..., dict[str, Any]] = assess_in_child
    send: Callable[..., int] = deliver
    back_off: BackOff = field(default_factory=BackOff)


class Worker:
    """Routes, assesses and sends until stopped. One in a process; one with each data folder (see `WorkerLock`)."""

    def __init__(self, settings: Settings, ledger: Ledger, order: Order, tools: Tools | None = None) -> None:
        self._settings = settings
        self._ledger = ledger
        self._order = order
        self._tools = tools or Tools()
        self._stop = threading.Event()
        self._slots = threading.BoundedSemaphore(settings.worker.concurrency)
        self._children: set[subprocess.Popen[str]] = set()
        self._submitted: set[str] = set()
        self._outbox = Outbox(
            ledger,
            settings.data_folder,
            settings.send,
            calling_ae_title=settings.listener.ae_title,
            back_off=self._tools.back_off,
            send=self._tools.send,
        )
        store = Store(settings.data_folder, minimum_free_bytes=int(settings.listener.minimum_free_gib * 2**30))
        completeness = Completeness(settings, ledger)
        fetcher = Fetcher(settings, ledger, Keep(store, ledger))
        self._rounds = (
            Rounds("completeness", completeness.look, every_s=_ROUTE_EVERY_S, may_run=lambda: True),
            Rounds("fetch", fetcher.look, every_s=_FETCH_EVERY_S, may_run=lambda: True),
        )
        self._router = threading.Thread(target=self._route_until_stopped, name="router", daemon=True)

    def start(self) -> None:
        """Launch the engine, which takes up what an earlier process left unfinished.

        Raises `Refused` ("database_unreachable"); then nothing is left running.
        """
        config: DBOSConfig = {
            "name": "marginwatch",
            "system_database_url": self._settings.queue_url,
            "application_version": _WORKFLOW_VERSION,
            "executor_id": "worker",
            "log_level": "CRITICAL",
            "notification_listener_polling_interval_sec": 1.0,
        }
        try:
            with reaching(self._settings.queue_url):
                DBOS(config=config)
                self._register_workflows()
                DBOS.launch()
                DBOS.register_queue(
                    "assess", worker_concurrency=self._settings.worker.concurrency, polling_interval_sec=_POLL_EVERY_S
                )
        except Refused:
            DBOS.destroy(destroy_registry=True)
            raise
        self._router.start()
        self._outbox.start()
        for rounds in self._rounds:
            rounds.start()

    def stop(self) -> None:
        """Stop now. What runs is killed and goes on at the next start."""
        self._stop.set()
        for child in list(self._children):
            child.kill()
        for rounds in self._rounds:
            rounds.stop()
        self._router.join()
        self._outbox.stop()
        DBOS.destroy(destroy_registry=True)

    def _register_workflows(self) -> None:
        assessing = StepOptions(
            name="assess", retries_allowed=True, max_attempts=self._settings.worker.attempts, interval_seconds=1.0
        )

        def assess_study(assessment_id: str) -> None:
            try:
                answer = DBOS.run_step(assessing, self._assess, assessment_id)
            except Exception as problem:  # noqa: BLE001  the worker: a bug in one study must not stop the next
                answer = {"failed": _last_cause(problem)}
            DBOS.run_step({"name": "record"}, self._record_until_kept, assessment_id, answer)

        self._assess_study = DBOS.workflow(name="assess_study", max_recovery_attempts=_DEATHS_ALLOWED)(assess_study)

    # -- routing

    def _route_until_stopped(self) -> None:
        pause_s = _ROUTE_EVERY_S
        while not self._stop.wait(pause_s):
            started = time.monotonic()
            try:
                for record in route(self._ledger, self._order):
                    self._submit(record)
            except Exception:  # noqa: BLE001  the worker: a database that is away for a moment comes back
                _LOG.exception("routing failed; trying again")
            pause_s = max(_ROUTE_EVERY_S, 5 * (time.monotonic() - started))

    def _submit(self, record: AssessmentRecord) -> None:
        if record.assessment_id in self._submitted:
            self._notice_death(record)
            return
        with SetWorkflowID(record.assessment_id), SetEnqueueOptions(priority=record.priority):
            DBOS.enqueue_workflow("assess", self._assess_study, record.assessment_id)
        self._submitted.add(record.assessment_id)

    def _notice_death(self, record: AssessmentRecord) -> None:
        """End an assessment whose workflow the engine gave up: done where its result is whole, else failed."""
        status = DBOS.get_workflow_status(record.assessment_id)
        if status is None or status.status not in ("ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "CANCELLED"):
            return
        record = self._ledger.assessment(record.assessment_id)
        if record.state in ENDED:
            return
        if (document := self._finished(record)) is not None:
            self._record(record.assessment_id, {"document": document})
        elif status.status == "ERROR":
            text = f"the answer could not be recorded: {status.error}"
            self._record(record.assessment_id, {"failed": text})
        else:
            text = "the worker died several times while it was at this study"
            self._record(record.assessment_id, {"failed": text})

    def _finished(self, record: AssessmentRecord) -> dict[str, Any] | None:
        """The document of a result that was written before; None where there is none. A result folder appears whole."""
        try:
            text = (self._settings.data_folder / record.folder / "assessment.json").read_text(encoding="utf-8")
            document: dict[str, Any] = json.loads(text)
        except (FileNotFoundError, ValueError):
            return None
        return document

    # -- steps

    def _assess(self, assessment_id: str) -> dict[str, Any]:
        """The answer of one assessment: its document, or how it was refused."""
        record = self._ledger.assessment(assessment_id)
        if (document := self._finished(record)) is not None:  # written just before an earlier process died
            return {"document": document}
        with self._slots:
            if self._stop.is_set():
                raise _Stopping
            self._ledger.started(assessment_id)
            job = job_of(record, self._ledger, self._settings.data_folder)
            job = replace(job, simulation=self._settings.simulation)
            try:
                limit = self._settings.worker.time_limit_s
                return {"document": self._tools.assess(job, time_limit_s=limit, watch=self._watch)}
            except Refused as refused:
                if refused.code == "cannot_write_results":  # the disk is to blame, not the study: worth another try
                    raise
                return {"refused": {"code": refused.code, "text": refused.text}}
            except ChildBroke:
                if self._stop.is_set():
                    raise _Stopping from None
                raise
            finally:
                for child in [child for child in self._children if child.poll() is not None]:
                    self._children.discard(child)

    def _watch(self, child: subprocess.Popen[str]) -> None:
        self._children.add(child)
        if self._stop.is_set():
            child.kill()

    def _record_until_kept(self, assessment_id: str, answer: dict[str, Any]) -> None:
        """Record the answer; tried until the database is there to take it, or the worker stops."""
        waited_s = 0.0
        while True:
            try:
                return self._record(assessment_id, answer)
            except _DATABASE_AWAY as problem:
                _LOG.warning("an answer could not be recorded and will be again: %s", problem.orig)
            waited_s = _RECORD_AGAIN.after(waited_s)
            if self._stop.wait(waited_s):
                raise _Stopping

    def _record(self, assessment_id: str, answer: dict[str, Any]) -> None:
        if "document" in answer:
            owed_to = [destination.name for destination in self._settings.send]
            if not is_current(self._ledger.assessment(assessment_id), self._ledger):
                _LOG.info("assessment %s is not sent: what it was made from has changed meanwhile", assessment_id[:16])
                owed_to = []
            self._ledger.ended(assessment_id, "done", document=answer["document"], send_to=owed_to)
        elif "refused" in answer:
            told = withdraw(self._ledger.assessment(assessment_id), self._ledger, self._settings.data_folder)
            self._ledger.ended(assessment_id, "refused", **answer["refused"], send_to=told)
        else:
            _LOG.error("assessment %s failed: %s", assessment_id[:16], answer["failed"])
            self._ledger.ended(assessment_id, "failed", code="failed", text=answer["failed"])


def job_of(record: AssessmentRecord, ledger: Ledger, data_folder: Path) -> Job:
    """What the assessment is made from, as paths. A received file's path is relative to the data folder."""
    plan = next(plan for plan in ledger.plans() if plan.plan_id == record.plan_id)
    path = partial(_path, data_folder)
    return Job(
        plan=path(f"{plan.folder}/plan.json"),
        baseline=tuple(path(x.path) for x in ledger.instances(plan.baseline_study_instance_uid)),
        followup=tuple(path(x.path) for x in ledger.instances(record.study_instance_uid)),
        previous=tuple(path(ledger.assessment(earlier).folder) for earlier in record.previous),
        out=path(record.folder),
        supersedes=tuple(path(earlier.folder) for earlier in superseded_by(record, ledger)),
    )


def _path(data_folder: Path, stored: str) -> str:
    return str(data_folder / stored)


def _last_cause(problem: BaseException) -> str:
    """What went wrong at the last of several tries."""
    errors = getattr(problem, "errors", None)
    last = errors[-1] if errors else problem
    return f"{type(last).__name__}: {last}"
