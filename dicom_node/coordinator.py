"""What one elected worker does for all: decide what is due, put it on the queues, take over what the lost have left."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dicom_node.attempt import Attempts, finished_before
from dicom_node.claims import ROUTING, Station
from dicom_node.engine import Engine
from dicom_node.records import ENDED, AssessmentRecord, Resource, WorkerRecord
from dicom_node.routing import Order, route

_LOG = logging.getLogger("marginwatch.queue")


class Coordinator:
    """A candidate for the election; `coordinate` does the work only while this worker holds the lease."""

    def __init__(self, station: Station, order: Order, engine: Engine, attempts: Attempts) -> None:
        self._settings = station.settings
        self._ledger = station.ledger
        self._claims = station.claims
        self._order = order
        self._engine = engine
        self._attempts = attempts
        self._submitted: set[str] = set()

    def coordinate(self) -> None:
        """Do once what is to be done now."""
        if not self._claims.lease(ROUTING):
            self._submitted.clear()  # whoever holds it may do other things with them
            return
        self._take_over_from_the_lost()
        due = route(self._ledger, self._order, permitted=self._claims.holds(ROUTING))
        self._submit([record for record in due if record.assessment_id not in self._submitted])
        self._look_after([record for record in due if record.assessment_id in self._submitted])

    def _submit(self, records: Sequence[AssessmentRecord]) -> None:
        if not records:
            return
        workers, counts = self._claims.workers(), self._engine.queued() if self._some_have_gpus() else {}
        for record in records:
            resource = least_loaded(workers, counts)
            counts[resource] = counts.get(resource, 0) + 1
            if resource != record.resource:
                self._claims.assign(record.assessment_id, resource)
            self._engine.enqueue(record.assessment_id, resource, record.priority)
            self._submitted.add(record.assessment_id)

    def _some_have_gpus(self) -> bool:
        return any(worker.gpus for worker in self._claims.workers())

    def _look_after(self, records: Sequence[AssessmentRecord]) -> None:
        """End what the engine has given up, and move what waits for a resource that no worker has any more."""
        for assessment_id, error in self._engine.over([record.assessment_id for record in records]).items():
            self._end(assessment_id, error)
        on_gpu = [record for record in records if record.resource == "gpu" and record.state == "queued"]
        if on_gpu and not self._some_have_gpus():
            for record in on_gpu:
                self._claims.assign(record.assessment_id, "cpu")
                self._engine.resume(record.assessment_id, "cpu")

    def _end(self, assessment_id: str, error: str) -> None:
        """End an assessment that nobody will go on with: done where its result is whole, else failed."""
        record = self._ledger.assessment(assessment_id)
        if record.state in ENDED:
            return
        answer = finished_before(record, self._settings.data_folder)
        reason = f"the answer could not be recorded: {error}" if error else "its workflow ended without an answer"
        self._attempts.keep(assessment_id, record.token, answer or {"failed": reason})

    def _take_over_from_the_lost(self) -> None:
        unfinished = self._engine.unfinished()
        # Read after the workflows: a worker is known before it begins one.
        living = {worker.worker_id for worker in self._claims.workers()}
        for left in unfinished:
            if left.executor_id in living:
                continue
            deaths = self._claims.take_over(left.assessment_id, left.executor_id)
            try:
                record = self._ledger.assessment(left.assessment_id)
            except KeyError:  # the ledger is of another backup than the queue
                _LOG.warning("assessment %s is not in the ledger and is given up", left.assessment_id[:16])
                self._engine.give_up(left.assessment_id)
                continue
            if deaths is not None and deaths > self._settings.worker.takeovers and record.state not in ENDED:
                self._engine.give_up(left.assessment_id)
                self._give_up(record)
                continue
            _LOG.warning("assessment %s was left by a worker and goes on", left.assessment_id[:16])
            self._engine.resume(left.assessment_id, record.resource)

    def _give_up(self, record: AssessmentRecord) -> None:
        answer = finished_before(record, self._settings.data_folder)
        text = f"the worker died {record.takeovers} times while it was at this study"
        self._attempts.keep(record.assessment_id, record.token, answer or {"failed": text})


def least_loaded(workers: Sequence[WorkerRecord], queued: dict[str, int]) -> Resource:
    """Where one more assessment would wait the shortest: by places of all workers and by what stands there already."""
    places: dict[Resource, int] = {"cpu": sum(w.cpus for w in workers), "gpu": sum(w.gpus for w in workers)}
    offered: list[Resource] = [resource for resource in ("gpu", "cpu") if places[resource]]
    if not offered:
        return "cpu"
    return min(offered, key=lambda resource: (queued.get(resource, 0) + 1) / places[resource])
