"""Whether the node can do its work: database, disk, worker."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.ledger import Ledger


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
