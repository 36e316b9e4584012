"""What has stood still, and which workers have fallen silent. No clock is compared with another machine's."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from dicom_node.records import WorkerRecord

_UNKNOWN = "0"


class Stillness:
    """How long values have stood still that others change, by the observer's own clock, which only goes forward.

    Only time in which it looked counts: after it was stopped itself, or the database was away, everybody has time to
    show a sign of life again. longest_step_s: what counts at most between two looks.
    """

    def __init__(self, *, longest_step_s: float) -> None:
        self._longest_step_s = longest_step_s
        self._looked_at_s: float | None = None
        self._seen: dict[str, tuple[float, float]] = {}

    def interrupt(self) -> None:
        """Count nothing of the time until the next look."""
        self._looked_at_s = None

    def look(self, values: Mapping[str, float], now_s: float) -> dict[str, float]:
        """For how long each value has been as it is now, s."""
        step_s = 0.0 if self._looked_at_s is None else min(now_s - self._looked_at_s, self._longest_step_s)
        self._looked_at_s = now_s
        before, self._seen = self._seen, {}
        for name, value in values.items():
            last, still_s = before.get(name, (value, -step_s))
            self._seen[name] = (value, still_s + step_s if last == value else 0.0)
        return {name: still_s for name, (_, still_s) in self._seen.items()}


class Watch:
    """What one observer has seen of the other workers' counters."""

    def __init__(self, *, lost_after_s: float, look_every_s: float) -> None:
        self._lost_after_s = lost_after_s
        self._stillness = Stillness(longest_step_s=2 * look_every_s)

    def look(self, workers: Sequence[WorkerRecord], now_s: float) -> list[WorkerRecord]:
        """Those that have been silent for too long."""
        silent_s = self._stillness.look({worker.worker_id: worker.beat for worker in workers}, now_s)
        return [worker for worker in workers if silent_s[worker.worker_id] >= self._lost_after_s]


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
