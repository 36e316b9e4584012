"""Reports on storage commitment to peers whose address is known: on an association of their own, until it succeeds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pynetdicom.presentation import build_context, build_role

from dicom_node.back_off import BackOff, Delay
from dicom_node.connection import Called, connect
from dicom_node.receive.commitment import PUSH_MODEL_INSTANCE, Answer, event_type_of, report_of
from dicom_node.receive.negotiation import STORAGE_COMMITMENT

_LOG = logging.getLogger("marginwatch.commitment")

_BACK_OFF = BackOff(5.0, 600.0)
#: Who has heard nothing for so long has asked again, or does not want to know.
_GIVE_UP_AFTER_S = 86400.0
_MOST_WAITING = 1000
_LOOK_EVERY_S = 0.2
#: The peer may know its transaction only once it has read that the request was accepted.
_AFTER_THE_ANSWER_S = 0.5


class _NotReported(Exception):
    """The peer cannot be reached, or does not take the report; the text says which."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    called: Called
    answer: Answer
    since_s: float


class Callbacks:
    """Calls peers back in a thread of its own. peers: by AE title. What waits is lost with the process."""

    def __init__(self, peers: Mapping[str, Called], *, ae_title: str, back_off: BackOff = _BACK_OFF) -> None:
        self._peers = peers
        self._ae_title = ae_title
        self._back_off = back_off
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        # The thread's own: a peer that is away is spared, with all that waits for it.
        self._delays: dict[str, Delay] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="commitment reports", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def takes(self, ae_title: str, answer: Answer) -> bool:
        """Whether the peer will be called back; False where its address is not known, or too many wait already."""
        called = self._peers.get(ae_title)
        with self._lock:
            if called is None or len(self._waiting) >= _MOST_WAITING:
                return False
            self._waiting.append(_Waiting(called, answer, time.monotonic()))
        return True

    def _work(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            with self._lock:
                waiting = list(self._waiting)
            for one in waiting:
                if self._stop.is_set():
                    return
                delay = self._delays.setdefault(one.called.ae_title, Delay())
                now = time.monotonic()
                if now >= max(delay.until_s, one.since_s + _AFTER_THE_ANSWER_S) and self._is_done(one, delay):
                    with self._lock:
                        self._waiting.remove(one)

    def _is_done(self, one: _Waiting, delay: Delay) -> bool:
        try:
            self._report(one)
        except Exception as problem:  # noqa: BLE001  whatever a peer or pynetdicom brings, the others are told
            _LOG.warning("a report on storage commitment did not reach %s: %s", one.called.ae_title, problem)
            delay.lengthen(self._back_off, time.monotonic())
            return time.monotonic() > one.since_s + _GIVE_UP_AFTER_S
        del self._delays[one.called.ae_title]
        return True

    def _report(self, one: _Waiting) -> None:
        role = build_role(STORAGE_COMMITMENT, scp_role=True)
        association = connect(one.called, self._ae_title, [build_context(STORAGE_COMMITMENT)], roles=[role])
        if not association.is_established:
            raise _NotReported("it refuses the association, or cannot be reached")
        try:
            status, _ = association.send_n_event_report(
                report_of(one.answer), event_type_of(one.answer), STORAGE_COMMITMENT, PUSH_MODEL_INSTANCE
            )
        finally:
            association.release()
        if status.get("Status") != 0x0000:
            raise _NotReported(f"it answered {status.get('Status')}")
