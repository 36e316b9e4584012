"""One worker's attempts at assessments: claimed under a token, made in a child process, recorded while the token holds.

Each holder of an assessment writes a result folder of its own. Only the one that is recorded counts; what others have
left is swept away once the assessment has ended.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from dicom_node.back_off import BackOff
from dicom_node.child import ChildBroke, Job
from dicom_node.claims import Station
from dicom_node.durable import clear_leftovers
from dicom_node.ledger import Ledger
from dicom_node.logs import about
from dicom_node.records import ENDED, AssessmentRecord
from dicom_node.refusal import Refused
from dicom_node.routing import is_current
from dicom_node.schema import DATABASE_AWAY
from dicom_node.withdrawing import superseded_by

_LOG = logging.getLogger("marginwatch.queue")
_AGAIN = BackOff(first_s=0.5, longest_s=30.0)
_T = TypeVar("_T")


class Stopping(BaseException):
    """The worker goes down or is lost: leave the workflow unfinished, it goes on elsewhere."""


class Attempts:
    """What the engine's workflows call, and the children that run for them; safe between threads."""

    def __init__(self, station: Station, assess: Callable[..., dict[str, Any]]) -> None:
        self._settings = station.settings
        self._ledger = station.ledger
        self._claims = station.claims
        self._assess = assess
        self._stop = threading.Event()
        worker = station.settings.worker
        self._slots = threading.BoundedSemaphore(worker.concurrency + worker.gpus)
        self._free_gpus: SimpleQueue[int] = SimpleQueue()
        for gpu in range(worker.gpus):
            self._free_gpus.put(gpu)
        self._children: dict[str, tuple[int, subprocess.Popen[str]]] = {}

    def stop(self) -> None:
        """Kill what runs; it is left unfinished."""
        self._stop.set()
        for _, child in list(self._children.values()):
            child.kill()

    def kill_what_is_not_ours(self) -> None:
        """Stop the children of assessments that were called off or taken over."""
        if not self._children:
            return
        running = dict(self._children)
        held = self._claims.held()
        for assessment_id, (token, child) in running.items():
            if held.get(assessment_id) != token:
                _LOG.warning("assessment %s is not this worker's any more and is stopped", assessment_id[:16])
                child.kill()

    # -- what a workflow does

    @contextmanager
    def slot(self) -> Iterator[None]:
        with self._slots:
            yield

    def claim(self, assessment_id: str) -> int | None:
        self._go_on()
        token = self._until_there(lambda: self._claims.claim(assessment_id))
        if token is None and not self._has_ended(assessment_id):
            raise Stopping  # this worker is lost
        return token

    def assess(self, assessment_id: str, token: int) -> dict[str, Any]:
        """`document` and `folder`, or `refused`, or `dropped` where the assessment is not ours any more.

        A disk that does not take the results is waited for.
        """
        self._go_on()
        record = self._until_there(lambda: self._ledger.assessment(assessment_id))
        waited_s = 0.0
        with self._about(record, "assess"):
            _LOG.info("assessment %s begins", assessment_id[:16])
            while True:
                try:
                    return self._answer(record, token)
                except Refused as refused:  # the disk is to blame, not the study: it is no attempt that failed
                    _LOG.error("the assessment will be made again: %s", refused.text)
                waited_s = _AGAIN.after(waited_s)
                if self._stop.wait(waited_s):
                    raise Stopping
                if not self._is_held(record, token):
                    return {"dropped": True}

    def _is_held(self, record: AssessmentRecord, token: int) -> bool:
        return self._until_there(lambda: self._claims.held().get(record.assessment_id) == token)

    def _answer(self, record: AssessmentRecord, token: int) -> dict[str, Any]:
        if (finished := finished_before(record, self._settings.data_folder)) is not None:
            return finished  # written just before an earlier holder died
        folder = _attempt_folder(record, token)
        job = job_of(record, self._ledger, self._settings.data_folder)
        job = replace(job, simulation=self._settings.simulation, out=str(self._settings.data_folder / folder))
        try:
            with self._device(record) as environment:
                document = self._assess(
                    job,
                    time_limit_s=self._settings.worker.time_limit_s,
                    watch=lambda child: self._watch(record.assessment_id, token, child),
                    environment=environment,
                )
            return {"document": document, "folder": folder}
        except Refused as refused:
            if refused.code == "cannot_write_results":
                raise
            return {"refused": {"code": refused.code, "text": refused.text}}
        except ChildBroke:
            self._go_on()
            if not self._is_held(record, token):
                return {"dropped": True}
            raise
        finally:
            self._children.pop(record.assessment_id, None)

    def record(self, assessment_id: str, token: int, answer: dict[str, Any]) -> None:
        """Recorded as soon as the database is there to take it."""
        with self._about(self._until_there(lambda: self._ledger.assessment(assessment_id)), "record"):
            self._record(assessment_id, token, answer)

    def _record(self, assessment_id: str, token: int, answer: dict[str, Any]) -> None:
        if "dropped" not in answer and self._until_there(lambda: self.keep(assessment_id, token, answer)):
            return
        _LOG.warning("assessment %s is another's now, or called off: its answer is dropped", assessment_id[:16])
        if not self._has_ended(assessment_id):
            raise Stopping
        self._sweep(assessment_id, token)

    def keep(self, assessment_id: str, token: int, answer: dict[str, Any]) -> bool:
        """Whether the answer was recorded: not where the token is an old one, or the assessment has ended."""
        if "document" in answer:
            owed_to = [destination.name for destination in self._settings.send]
            if not is_current(self._ledger.assessment(assessment_id), self._ledger):
                _LOG.info("assessment %s is not sent: what it was made from has changed meanwhile", assessment_id[:16])
                owed_to = []
            kept = self._ledger.ended(assessment_id, "done", **answer, send_to=owed_to, token=token)
        elif "refused" in answer:
            kept = self._ledger.ended(assessment_id, "refused", **answer["refused"], token=token)
        else:
            _LOG.error("assessment %s failed: %s", assessment_id[:16], answer["failed"])
            kept = self._ledger.ended(assessment_id, "failed", code="failed", text=answer["failed"], token=token)
        if kept:
            _LOG.info("assessment %s has ended: %s", assessment_id[:16], _ending(answer))
            self._sweep(assessment_id, token)
        return kept

    # -- inside

    def _about(self, record: AssessmentRecord, step: str) -> AbstractContextManager[None]:
        """What is logged in the block says which study and patient it is about."""
        uid = record.study_instance_uid
        return about(
            study_instance_uid=uid, patient_id=self._until_there(lambda: self._ledger.patient_id(uid)), step=step
        )

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Stopping

    def _watch(self, assessment_id: str, token: int, child: subprocess.Popen[str]) -> None:
        self._children[assessment_id] = (token, child)
        if self._stop.is_set():
            child.kill()

    @contextmanager
    def _device(self, record: AssessmentRecord) -> Iterator[dict[str, str] | None]:
        """The environment in which the child finds what it may compute on; None where the worker has no say in it."""
        if not self._settings.worker.gpus:
            yield None
            return
        device = None
        if record.resource == "gpu":
            with suppress(Empty):
                device = self._free_gpus.get_nowait()
        try:
            yield {**os.environ, "CUDA_VISIBLE_DEVICES": "" if device is None else str(device)}
        finally:
            if device is not None:
                self._free_gpus.put(device)

    def _until_there(self, ask: Callable[[], _T]) -> _T:
        """What the database answers, asked until it is there to answer, or the worker stops."""
        waited_s = 0.0
        while True:
            try:
                return ask()
            except DATABASE_AWAY as problem:
                _LOG.warning("the database is away and will be asked again: %s", problem.orig)
            waited_s = _AGAIN.after(waited_s)
            if self._stop.wait(waited_s):
                raise Stopping

    def _has_ended(self, assessment_id: str) -> bool:
        return self._until_there(lambda: self._ledger.assessment(assessment_id)).state in ENDED

    def _sweep(self, assessment_id: str, token: int) -> None:
        """Delete what other attempts at an assessment that has ended have left behind; its own result stays."""
        record = self._until_there(lambda: self._ledger.assessment(assessment_id))
        for number in range(1, token + 1):
            folder = _attempt_folder(record, number)
            clear_leftovers(self._settings.data_folder / folder)
            if folder != record.folder or record.state != "done":
                shutil.rmtree(self._settings.data_folder / folder, ignore_errors=True)


def _ending(answer: dict[str, Any]) -> str:
    """In a word or a code."""
    if "document" in answer:
        return str(answer["document"].get("outcome"))
    return str(answer["refused"]["code"]) if "refused" in answer else "failed"


def finished_before(record: AssessmentRecord, data_folder: Path) -> dict[str, Any] | None:
    """A result that was written and not recorded; None where there is none. A result folder appears whole."""
    for number in range(1, record.token + 1):
        folder = _attempt_folder(record, number)
        try:
            text = (data_folder / folder / "assessment.json").read_text(encoding="utf-8")
            return {"document": json.loads(text), "folder": folder}
        except (FileNotFoundError, ValueError):
            continue
    return None


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


def _attempt_folder(record: AssessmentRecord, token: int) -> str:
    """Where the holder of the token writes: no two holders in the same place."""
    first = Path(record.folder).with_name(record.assessment_id[:16])
    return str(first) if token == 1 else f"{first}-{token}"


def _path(data_folder: Path, stored: str) -> str:
    return str(data_folder / stored)
