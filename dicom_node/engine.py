"""The durable engine, DBOS Transact, behind one file: workflows that go on with the step that was not finished.

An assessment is one workflow whose id is the assessment's: the engine never starts it twice. SQLite or PostgreSQL, by
the queue's URL alone.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from dbos import DBOS, DBOSConfig, SetEnqueueOptions, SetWorkflowID, StepOptions

from dicom_node.records import Resource
from dicom_node.refusal import Refused
from dicom_node.schema import reaching

#: The workflows' own version: a newer program goes on with an older one's unfinished work unless this changed.
_WORKFLOW_VERSION = "1"
_POLL_EVERY_S = 0.25
_OVER = ("SUCCESS", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "CANCELLED")


class Work(Protocol):
    """What a workflow does. A `BaseException` that is no `Exception` leaves it unfinished, to go on elsewhere."""

    def slot(self) -> AbstractContextManager[object]:
        """A place among those that run at the same time; waited for."""

    def claim(self, assessment_id: str) -> int | None:
        """The token under which it is ours; None where there is nothing to do any more."""

    def assess(self, assessment_id: str, token: int) -> dict[str, Any]:
        """The answer. Called again in the next attempt where it raises."""

    def record(self, assessment_id: str, token: int, answer: dict[str, Any]) -> None:
        """Keep the answer; `failed` in it holds the traceback of the last attempt."""


@dataclass(frozen=True)
class Limits:
    """How many assessments run at the same time on each resource, and how often one is tried."""

    cpus: int
    gpus: int
    attempts: int

    @property
    def queues(self) -> dict[Resource, int]:
        places: dict[Resource, int] = {"cpu": self.cpus, "gpu": self.gpus}
        return {resource: count for resource, count in places.items() if count}


@dataclass(frozen=True)
class Unfinished:
    """A workflow that a process has begun: executor_id tells which."""

    assessment_id: str
    executor_id: str


class Engine:
    """A launched engine; only one in a process."""

    def __init__(self, url: str, executor_id: str, limits: Limits, work: Work) -> None:
        """Raises `Refused` ("database_unreachable"); then nothing is left running."""
        config: DBOSConfig = {
            "name": "marginwatch",
            "system_database_url": url,
            "application_version": _WORKFLOW_VERSION,
            "executor_id": executor_id,
            "log_level": "CRITICAL",
            "notification_listener_polling_interval_sec": 1.0,
        }
        try:
            with reaching(url):
                DBOS(config=config)
                self._assess_study = _workflow(work, limits.attempts)
                DBOS.listen_queues(list(limits.queues))
                DBOS.launch()
                for resource, count in limits.queues.items():
                    DBOS.register_queue(resource, worker_concurrency=count, polling_interval_sec=_POLL_EVERY_S)
        except Refused:
            DBOS.destroy(destroy_registry=True)
            raise

    def close(self) -> None:
        DBOS.destroy(destroy_registry=True)

    def enqueue(self, assessment_id: str, resource: Resource, priority: int) -> None:
        """Put an assessment on a queue; one that ever was on one stays what it is."""
        with SetWorkflowID(assessment_id), SetEnqueueOptions(priority=priority):
            DBOS.enqueue_workflow(resource, self._assess_study, assessment_id)

    def unfinished(self) -> list[Unfinished]:
        """What some process has begun and not finished."""
        found = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        return [Unfinished(status.workflow_id, str(status.executor_id)) for status in found]

    def over(self, assessment_ids: Sequence[str]) -> dict[str, str]:
        """Those of these workflows that nobody will go on with, each with the error it ended with, if any."""
        if not assessment_ids:
            return {}
        ids = list(assessment_ids)
        found = DBOS.list_workflows(workflow_ids=ids, status=list(_OVER), load_input=False)
        return {status.workflow_id: str(status.error or "") for status in found}

    def queued(self) -> dict[str, int]:
        """How many assessments stand on each queue or run from it."""
        found = DBOS.list_workflows(status=["ENQUEUED", "PENDING"], load_input=False, load_output=False)
        counts: dict[str, int] = {}
        for status in found:
            counts[str(status.queue_name)] = counts.get(str(status.queue_name), 0) + 1
        return counts

    def resume(self, assessment_id: str, resource: Resource) -> None:
        """Let any worker go on with it, on this queue. Whoever still runs it can record no step any more."""
        DBOS.resume_workflow(assessment_id, queue_name=resource)

    def give_up(self, assessment_id: str) -> None:
        DBOS.cancel_workflow(assessment_id)


def _workflow(work: Work, attempts: int) -> Any:
    assessing = StepOptions(name="assess", retries_allowed=True, max_attempts=attempts, interval_seconds=1.0)

    def assess_study(assessment_id: str) -> None:
        with work.slot():
            # Not a step: whoever goes on with the workflow has it under a token of its own.
            token = work.claim(assessment_id)
            if token is None:
                return
            try:
                answer = DBOS.run_step(assessing, work.assess, assessment_id, token)
            except Exception as problem:  # noqa: BLE001  the worker: a bug in one study must not stop the next
                answer = {"failed": _last_cause(problem)}
            DBOS.run_step({"name": "record"}, work.record, assessment_id, token, answer)

    # How often it may be taken over is counted in the ledger: the engine begins to count anew whenever it is resumed.
    return DBOS.workflow(name="assess_study", max_recovery_attempts=None)(assess_study)


def _last_cause(problem: BaseException) -> str:
    """What went wrong at the last of several tries, with a traceback: the child's where it told one, else ours."""
    errors = getattr(problem, "errors", None)
    last = errors[-1] if errors else problem
    cause = f"{type(last).__name__}: {last}"
    return cause if "\n" in cause else f"{cause}\n{''.join(traceback.format_exception(last))}"
