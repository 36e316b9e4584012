"""What a monitoring system asks: how much came, what waits, what failed, how long each stage takes. Prometheus text.

Cheap to ask: counts come grouped from the database, stage times are read once for each finished assessment.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.ledger import Ledger
from dicom_node.records import ENDED, AssessmentState, SendState
from dicom_node.schema import ASSESSMENTS, CONFLICTS, INSTANCES, SENDS, WORKERS
from dicom_node.withdrawing import withdrawals
from dicom_node.worklist import StudyState, worklist

_LOG = logging.getLogger("marginwatch.metrics")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
#: An assessment may be seen in the database a moment after a later one; so far back is looked again.
_LOOK_BACK_S = 120.0
_DOCUMENTS_AT_ONCE = 200


class NodeMetrics:
    """The node's figures. Keeps the stage times it has read: each document is read once. Safe between threads."""

    def __init__(self, ledger: Ledger, data_folder: Path) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Figures(ledger, data_folder))
        self._lock = threading.Lock()

    def text(self) -> bytes:
        """Every figure in Prometheus' text format; without those of the database where that cannot be reached."""
        with self._lock:
            return generate_latest(self._registry)


class _Figures(Collector):
    def __init__(self, ledger: Ledger, data_folder: Path) -> None:
        self._ledger = ledger
        self._data_folder = data_folder
        self._ended = _Ended(ledger)

    def describe(self) -> list[Metric]:
        """Nothing: so the registry does not collect when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        free = shutil.disk_usage(self._data_folder).free
        yield _gauge("marginwatch_disk_free_bytes", "Free on the data folder's disk.", {(): free}, ())
        try:
            figures = list(self._of_the_database())
        except SQLAlchemyError as problem:
            _LOG.error("the database cannot be counted: %s", problem)
            figures = []
        reached: dict[tuple[str, ...], float] = {(): float(bool(figures))}
        yield _gauge("marginwatch_database_reachable", "1 where the database answers, else 0.", reached, ())
        yield from figures

    def _of_the_database(self) -> Iterator[Metric]:
        states: dict[tuple[str, ...], float] = {(state,): 0 for state in get_args(StudyState)}
        for entry in worklist(self._ledger, with_documents=False):
            states[(entry.state,)] = states.get((entry.state,), 0) + 1
        yield _gauge("marginwatch_studies", "Studies by state, once for each plan they belong to.", states, ("state",))
        with self._ledger.engine.connect() as connection:
            instances = connection.execute(select(func.count()).select_from(INSTANCES)).scalar_one()
            conflicts = connection.execute(select(func.count()).select_from(CONFLICTS)).scalar_one()
            by_state = connection.execute(
                select(ASSESSMENTS.c.state, func.count()).where(~ASSESSMENTS.c.superseded).group_by(ASSESSMENTS.c.state)
            ).all()
            by_worker = connection.execute(
                select(WORKERS.c.host, WORKERS.c.version, func.count())
                .where(~WORKERS.c.lost)
                .group_by(WORKERS.c.host, WORKERS.c.version)
            ).all()
            by_send = connection.execute(
                select(SENDS.c.state, func.count())
                .join(ASSESSMENTS, ASSESSMENTS.c.assessment_id == SENDS.c.assessment_id)
                .where(~ASSESSMENTS.c.superseded | (SENDS.c.state == "sent"))
                .group_by(SENDS.c.state)
            ).all()
        yield CounterMetricFamily("marginwatch_instances_received", "Instances in the ledger.", value=instances)
        yield CounterMetricFamily("marginwatch_instance_conflicts", "Instances put aside.", value=conflicts)
        current = {(state,): 0.0 for state in get_args(AssessmentState)} | {(state,): n for state, n in by_state}
        yield _gauge("marginwatch_assessments", "Assessments that hold, by state.", current, ("state",))
        sends = {(state,): 0.0 for state in get_args(SendState)} | {(state,): n for state, n in by_send}
        yield _gauge("marginwatch_sends", "Results owed to and taken by destinations.", sends, ("state",))
        workers: dict[tuple[str, ...], float] = {(host, version): n for host, version, n in by_worker}
        yield _gauge("marginwatch_workers", "Workers that are not lost.", workers, ("host", "version"))
        withdrawn: dict[tuple[str, ...], float] = {(state,): n for state, n in withdrawals(self._ledger).items()}
        yield _gauge("marginwatch_withdrawals", "Withdrawals of results without a successor.", withdrawn, ("state",))
        yield from self._ended.collect()


class _Ended:
    """Outcomes and stage times of every assessment that has ended, added up as they end."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._counted_to = 0.0
        self._recent: dict[str, float] = {}
        self._outcomes: dict[tuple[str, ...], float] = {}
        self._stages: dict[str, _Times] = {}

    def collect(self) -> Iterator[Metric]:
        self._read_on()
        outcomes = CounterMetricFamily(
            "marginwatch_assessments_ended",
            "Assessments that ended, by state and outcome.",
            labels=["state", "outcome"],
        )
        for labels, count in sorted(self._outcomes.items()):
            outcomes.add_metric(labels, count)
        yield outcomes
        times = HistogramMetricFamily("marginwatch_stage_seconds", "Time of each stage.", labels=["stage"])
        for stage, taken in sorted(self._stages.items()):
            times.add_metric([stage], taken.buckets(), taken.sum_s)
        yield times

    def _read_on(self) -> None:
        """Count what ended since the last time."""
        since = self._counted_to - _LOOK_BACK_S
        query = (
            select(ASSESSMENTS.c.assessment_id, ASSESSMENTS.c.ended_at, ASSESSMENTS.c.state, ASSESSMENTS.c.document)
            .where((ASSESSMENTS.c.ended_at >= since) & ASSESSMENTS.c.state.in_(ENDED))
            .execution_options(yield_per=_DOCUMENTS_AT_ONCE)
        )
        with self._ledger.engine.connect() as connection:
            for assessment_id, ended_at, state, document in connection.execute(query):
                if self._recent.get(assessment_id) != ended_at:
                    self._count(state, document)
                    self._recent[assessment_id] = ended_at
        self._counted_to = max([self._counted_to, *self._recent.values()])
        since = self._counted_to - _LOOK_BACK_S
        self._recent = {key: ended_at for key, ended_at in self._recent.items() if ended_at >= since}

    def _count(self, state: str, stored: str) -> None:
        document: dict[str, Any] = json.loads(stored) if stored else {}
        labels = (state, str(document.get("outcome", "")))
        self._outcomes[labels] = self._outcomes.get(labels, 0) + 1
        for stage, seconds in document.get("timing_s", {}).items():
            self._stages.setdefault(stage, _Times()).add(float(seconds))


class _Times:
    """One histogram."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        place = next((n for n, upper in enumerate(_BUCKETS_S) if seconds <= upper), len(_BUCKETS_S))
        self._counts[place] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bounds with how many took no longer."""
        sums = [sum(self._counts[: n + 1]) for n in range(len(self._counts))]
        return list(zip([*map(str, _BUCKETS_S), "+Inf"], map(float, sums), strict=True))


def _gauge(name: str, text: str, values: dict[tuple[str, ...], float], labels: tuple[str, ...]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family
