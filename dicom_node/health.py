"""Whether the node can do its work: database, disk, worker."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.ledger import Ledger
from dicom_node.schema import WORKERS


@dataclass(frozen=True)
class Health:
    """worker_seen_s_ago: since a worker last gave a sign; None where that is not known."""

    status: Literal["ok", "unwell"]
    database: Literal["reachable", "unreachable"]
    disk: Literal["ok", "full"]
    disk_free_bytes: int
    worker: Literal["alive", "silent", "unknown"]
    worker_seen_s_ago: float | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class HealthLimits:
    """From when on something counts as wrong: less free than this on the disk, no sign of a worker for so long."""

    minimum_free_bytes: int = 0
    worker_silent_s: float = 60.0


class WorkerSigns:
    """Signs of the workers of other processes: that a counter of theirs in the ledger has advanced between two looks.

    clock: monotonic seconds. No clock is compared with another machine's.
    """

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._lock = threading.Lock()
        self._beats: dict[str, int] | None = None
        self._seen_at_s = 0.0

    def seen_s_ago(self) -> float | None:
        """How long ago a look first found the last sign, counted from the first look at most; None at that first look,
        which cannot tell yet."""
        query = select(WORKERS.c.worker_id, WORKERS.c.beat).where(~WORKERS.c.lost)
        with self._lock:
            with self._ledger.engine.connect() as connection:
                beats = {worker_id: beat for worker_id, beat in connection.execute(query)}
            before, self._beats, now_s = self._beats, beats, self._clock()
            if before is None or any(before.get(worker_id, -1) < beat for worker_id, beat in beats.items()):
                self._seen_at_s = now_s
            return None if before is None else now_s - self._seen_at_s


def health_of(
    ledger: Ledger, data_folder: Path, limits: HealthLimits, worker_seen_s_ago: Callable[[], float | None]
) -> Health:
    """How the node is. worker_seen_s_ago: asks when a worker last gave a sign; None where nobody knows."""
    try:
        with ledger.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            seen = worker_seen_s_ago()
        reachable = True
    except SQLAlchemyError:
        reachable, seen = False, None
    free = shutil.disk_usage(data_folder).free
    full = free < limits.minimum_free_bytes
    silent = seen is not None and seen > limits.worker_silent_s
    return Health(
        status="ok" if reachable and not full and not silent else "unwell",
        database="reachable" if reachable else "unreachable",
        disk="full" if full else "ok",
        disk_free_bytes=free,
        worker="unknown" if seen is None else "silent" if silent else "alive",
        worker_seen_s_ago=seen,
    )
