"""Which workers have fallen silent. No clock is compared with another machine's: a living worker's counter advances."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from dicom_node.records import WorkerRecord

_UNKNOWN = "0"


class Watch:
    """What one observer has seen of the others' counters, by its own monotonic clock.

    Only time in which it looked counts as silence: after it was stopped itself, or the database was away, everybody
    has time to show a sign of life again.
    """

    def __init__(self, *, lost_after_s: float, look_every_s: float) -> None:
        self._lost_after_s = lost_after_s
        self._longest_step_s = 2 * look_every_s
        self._looked_at_s: float | None = None
        self._seen: dict[str, tuple[int, float]] = {}

    def look(self, workers: Iterable[WorkerRecord], now_s: float) -> list[WorkerRecord]:
        """Those that have been silent for too long."""
        step_s = 0.0 if self._looked_at_s is None else min(now_s - self._looked_at_s, self._longest_step_s)
        self._looked_at_s = now_s
        before, self._seen, silent = self._seen, {}, []
        for worker in workers:
            beat, silence_s = before.get(worker.worker_id, (worker.beat, -step_s))
            silence_s = silence_s + step_s if beat == worker.beat else 0.0
            self._seen[worker.worker_id] = (worker.beat, silence_s)
            if silence_s >= self._lost_after_s:
                silent.append(worker)
        return silent


def new_worker_id() -> str:
    """An id that no worker ever had: host, start of the machine, and a random part."""
    return f"{host_name()[:60]}_{_boot_id()}_{uuid4().hex[:12]}"


def on_the_same_machine(worker_id: str, other_id: str) -> bool:
    """Whether both run on one kernel, started once: then a file lock tells whether one is dead."""
    return worker_id.split("_")[-2] == other_id.split("_")[-2] != _UNKNOWN


def host_name() -> str:
    return socket.gethostname()


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8].strip() or _UNKNOWN
    except OSError:  # not Linux
        return _UNKNOWN
