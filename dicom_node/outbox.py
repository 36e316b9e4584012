"""What the PACSs have yet to take: every result is sent until it is taken, however long a PACS is away.

The ledger holds what is owed, so nothing is forgotten when the node stops. Sending needs no durable engine: sending
again is harmless, the objects keep their UIDs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dicom_node.back_off import BackOff, Delay
from dicom_node.claims import Station
from dicom_node.exchange.commitment import Commitment
from dicom_node.exchange.stow import deliver
from dicom_node.logs import about
from dicom_node.records import Send, SendState
from dicom_node.send import NotSent
from dicom_node.settings import Destination

_LOG = logging.getLogger("marginwatch.outbox")

_LOOK_EVERY_S = 0.5
#: A PACS that is being asked at the stop may take its time to answer; the answer is then lost, not the result.
_STOP_WITHIN_S = 2.0


#: Assessment and destination.
_Key = tuple[str, str]
Told = Callable[[Destination, Send, str], None]


class Outbox:
    """Sends what is owed until stopped; each destination in a thread of its own, so that none waits for another.

    Of several workers one sends to a destination, the one that holds its lease.

    told: hears of each time that something was sent, with what went wrong or an empty text.

    Everything owed is tried at once after the start; the waits between two tries are kept in memory only.
    """

    def __init__(
        self,
        station: Station,
        *,
        back_off: BackOff,
        send: Callable[..., int] = deliver,
        told: Told = lambda _destination, _owed, _problem: None,
    ) -> None:
        self._ledger = station.ledger
        self._claims = station.claims
        self._data_folder = station.settings.data_folder
        self._destinations = station.settings.send
        self._calling_ae_title = station.settings.listener.ae_title
        self._commitment = Commitment(self._ledger, self._calling_ae_title)
        self._back_off = back_off
        self._send = send
        self._told = told
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve_until_stopped, args=(x,), name=f"send {x.name}", daemon=True)
            for x in self._destinations
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_STOP_WITHIN_S)

    def _serve_until_stopped(self, destination: Destination) -> None:
        delays: dict[_Key, Delay] = {}
        while not self._stop.wait(min(_LOOK_EVERY_S, self._back_off.first_s)):
            try:
                self._serve(destination, delays)
            except Exception:  # noqa: BLE001  a worker: a database that is away for a moment comes back
                _LOG.exception("the results to be sent could not be looked up; trying again")

    def _serve(self, destination: Destination, delays: dict[_Key, Delay]) -> None:
        """Try everything that is owed to a destination and has waited long enough, oldest first."""
        names = [name for name in self._ledger.destinations_owed() if self._takes(destination, name)]
        all_owed = {(owed.assessment_id, owed.destination): owed for owed in self._ledger.owed(names)} if names else {}
        for key in delays.keys() - all_owed.keys():
            del delays[key]
        for key, owed in all_owed.items():
            if self._stop.is_set():
                return
            delay = delays.setdefault(key, Delay())
            if time.monotonic() < delay.until_s:
                continue
            if not self._claims.lease(_lease(destination)):  # another worker sends to it
                delays.clear()
                return
            taken = False
            try:
                taken = self._try(destination, owed)
            finally:  # also where the try could not be recorded: nothing is sent in quick succession
                if not taken:
                    delay.lengthen(self._back_off, time.monotonic())

    def _try(self, destination: Destination, owed: Send) -> bool:
        """Whether the destination has now taken the objects of one assessment, or they are not owed any more."""
        record = self._ledger.assessment(owed.assessment_id)
        uid = record.study_instance_uid
        with about(study_instance_uid=uid, patient_id=self._ledger.patient_id(uid), step="send"):
            return self._try_from(self._data_folder / record.folder / "dicom", destination, owed)

    def _try_from(self, folder: Path, destination: Destination, owed: Send) -> bool:
        try:
            files = sorted(folder.glob("*.dcm"))
            if not files:
                raise NotSent(f"there are no objects in {folder}")
            if owed.state == "stored" and destination.storage_commitment:
                return self._committed(destination, owed, files)
            if not self._claims.begin_send(owed, lease=_lease(destination), at=time.time()):
                return True  # it was superseded since it was looked up, or is another worker's now
            count = self._sent(files, destination, owed)
            if destination.storage_commitment:
                self._record(destination, owed, "stored", f"{count} objects stored; storage commitment is awaited")
                return self._committed(destination, owed, files)
        except Exception as problem:  # noqa: BLE001  a worker: whatever a peer or a bug brings, it goes on
            if not self._stop.is_set():
                _LOG.warning("results were not sent and will be sent again: %s", problem)
            self._record(destination, owed, "failed", str(problem))
            return False
        self._record(destination, owed, "sent", f"{count} objects")
        _LOG.info("%d objects were sent to %s", count, destination.name)
        return True

    def _sent(self, files: Sequence[Path], destination: Destination, owed: Send) -> int:
        """How many objects were sent; whether they were is told."""
        try:
            count = self._send(files, destination, calling_ae_title=self._calling_ae_title)
        except Exception as problem:
            self._tell(destination, owed, str(problem) or type(problem).__name__)
            raise
        self._tell(destination, owed, "")
        return count

    def _tell(self, destination: Destination, owed: Send, problem: str) -> None:
        try:
            self._told(destination, owed, problem)
        except Exception:  # noqa: BLE001  what was sent is sent, whoever cannot hear of it
            _LOG.exception("it could not be told what was sent to %s", destination.name)

    def _committed(self, destination: Destination, owed: Send, files: Sequence[Path]) -> bool:
        """Whether the destination has committed itself to keep what it has stored."""
        try:
            return self._commitment.seek(owed, destination, files)
        except Exception as problem:  # noqa: BLE001  the objects are there; only the commitment is asked for again
            self._record(destination, owed, "stored", f"stored; storage commitment cannot be asked for: {problem}")
            return False

    def _record(self, destination: Destination, owed: Send, state: SendState, text: str) -> None:
        if not self._claims.sent(owed, lease=_lease(destination), state=state, text=text, at=time.time()):
            _LOG.warning("%s is another worker's now; what was sent to it meanwhile is not counted", destination.name)

    def _takes(self, destination: Destination, name: str) -> bool:
        """Whether what is owed to this name is the destination's, or of the one it was before its address changed."""
        if name in (known.name for known in self._destinations):
            return name == destination.name
        same_title = [x for x in self._destinations if name.startswith(f"{x.ae_title}@")]
        return same_title == [destination]


def _lease(destination: Destination) -> str:
    return f"send {destination.name}"
