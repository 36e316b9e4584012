"""A thread that looks again and again whether there is something to do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_LOG = logging.getLogger("marginwatch.exchange")
#: A PACS that is being asked at the stop may take its time to answer; it is asked again at the next start.
_STOP_WITHIN_S = 2.0


class Rounds:
    """Calls `look` until stopped. may_run: whether this process is the one to do so; asked before each round.

    look: is handed what tells whether it is to end, to be asked before each thing that takes its time.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[Callable[[], bool]], None],
        *,
        every_s: float,
        may_run: Callable[[], bool],
    ) -> None:
        self._look = look
        self._every_s = every_s
        self._may_run = may_run
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_WITHIN_S)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                if self._may_run():
                    self._look(self._stop.is_set)
            except Exception:  # noqa: BLE001  a worker: a database that is away for a moment comes back
                if not self._stop.is_set():
                    _LOG.exception("%s failed; trying again", self._thread.name)
