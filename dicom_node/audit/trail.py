"""The node's audit trail: each act one line in a file of the day, and to a collector where one is configured."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dicom_node.audit import message as m
from dicom_node.audit.syslog import SyslogSender
from dicom_node.settings import AuditSettings

_LOG = logging.getLogger("marginwatch.audit")

#: Written lines outlive this process at once; within so long they outlive a power cut.
_SYNC_EVERY_S = 1.0


@dataclass(frozen=True)
class Actor:
    """Who acts. name: a user's, or an AE title; address: where from, or in a transfer where to."""

    name: str
    address: str = ""


class AuditTrail:
    """Writes what happened; never stops an act because it could not be written, but says so in the log.

    clock: seconds since the epoch. The files lie in `audit/` of the data folder, readable by the node's own user only.
    """

    def __init__(self, data_folder: Path, settings: AuditSettings, *, clock: Callable[[], float]) -> None:
        self._folder = data_folder / "audit"
        self._source = settings.source
        self._clock = clock
        self._lock = threading.Lock()
        self._file: tuple[str, int] | None = None
        self._is_synced = True
        self._is_torn = False
        self._stop = threading.Event()
        self._syslog = SyslogSender(settings) if settings.host else None
        self._syncer = threading.Thread(target=self._sync_until_stopped, name="audit", daemon=True)
        self._syncer.start()

    def close(self) -> None:
        self._stop.set()
        self._syncer.join()
        with self._lock:
            self._close_file()
        if self._syslog is not None:
            self._syslog.stop()

    # -- the node

    def started(self, parts: Collection[str]) -> None:
        self._activity(m.APPLICATION_START, parts)

    def stopped(self, parts: Collection[str]) -> None:
        self._activity(m.APPLICATION_STOP, parts)

    # -- instances

    def received(self, sender: Actor, receiver: str, parts: Sequence[m.StudyPart], *, failed: int = 0) -> None:
        """Record what came by one association or request: a message for each study, and one without a study for those
        that were refused and whose study is not known, `failed` in number.

        receiver: our AE title, or the path that was posted to.
        """
        there = m.Participant(sender.name, True, (m.SOURCE,), sender.address)
        here = m.Participant(receiver, False, (m.DESTINATION,), alternative_id=str(os.getpid()))
        for part in parts:
            self._write(self._arrival(part.failed), [there, here], [part])
        if failed:
            self._write(self._arrival(failed), [there, here], [])

    def sent(self, destination: Actor, sender: str, parts: Sequence[m.StudyPart], *, problem: str = "") -> None:
        """Record what a PACS has taken, or did not take: problem says why. sender: our AE title."""
        outcome = m.MINOR_FAILURE if problem else m.SUCCESS
        event = m.Event(m.INSTANCES_TRANSFERRED, "R", self._clock(), outcome=outcome, description=problem)
        here = m.Participant(sender, True, (m.SOURCE,), alternative_id=str(os.getpid()))
        there = m.Participant(destination.name, False, (m.DESTINATION,), destination.address)
        for part in parts:
            self._write(event, [here, there], [part])

    # -- people

    def viewed(self, who: Actor, part: m.StudyPart, what: str) -> None:
        """Record that a study's results were shown. what: the path of the page, report or picture."""
        self._write(m.Event(m.INSTANCES_ACCESSED, "R", self._clock()), [_person(who)], [part, what])

    def acted(self, who: Actor, part: m.StudyPart, what: str) -> None:
        """Record that something was done to a study. what: the path that was posted to, or the command."""
        self._write(m.Event(m.INSTANCES_ACCESSED, "U", self._clock()), [_person(who)], [part, what])

    def logged_in(self, who: Actor) -> None:
        self._authentication(who, m.LOGIN, m.SUCCESS, "")

    def login_failed(self, who: Actor, why: str) -> None:
        self._authentication(who, m.LOGIN, m.MINOR_FAILURE, why)

    def logged_out(self, who: Actor) -> None:
        self._authentication(who, m.LOGOUT, m.SUCCESS, "")

    def turned_away(self, who: Actor, what: str, why: str) -> None:
        """Record a request that was refused: for want of a role, or because it came from a foreign page."""
        event = m.Event(
            m.SECURITY_ALERT, "E", self._clock(), (m.RESTRICTED_FUNCTION,), outcome=m.SERIOUS_FAILURE, description=why
        )
        self._write(event, [_person(who)], [what])

    def users_changed(self, who: Actor, what: str) -> None:
        """Record that a user was added, removed or given another password. what: says which, in words."""
        event = m.Event(m.SECURITY_ALERT, "E", self._clock(), (m.USER_ATTRIBUTES_CHANGED,))
        self._write(event, [_person(who)], [what])

    # -- writing

    def _activity(self, kind: m.Code, parts: Collection[str]) -> None:
        program = m.Participant(f"marginwatch {' '.join(parts)}", False, (m.APPLICATION,), "", str(os.getpid()))
        self._write(m.Event(m.APPLICATION_ACTIVITY, "E", self._clock(), (kind,)), [program], [])

    def _authentication(self, who: Actor, kind: m.Code, outcome: str, why: str) -> None:
        event = m.Event(m.USER_AUTHENTICATION, "E", self._clock(), (kind,), outcome=outcome, description=why)
        self._write(event, [_person(who)], [])

    def _arrival(self, failed: int) -> m.Event:
        outcome = m.MINOR_FAILURE if failed else m.SUCCESS
        why = f"{failed} instances were not stored" if failed else ""
        return m.Event(m.INSTANCES_TRANSFERRED, "C", self._clock(), outcome=outcome, description=why)

    def _write(
        self, event: m.Event, participants: Sequence[m.Participant], subjects: Sequence[m.StudyPart | str]
    ) -> None:
        line = m.audit_message(event, participants, source=self._source, subjects=subjects)
        if self._syslog is not None:
            self._syslog.send(line, event.at)
        try:
            with self._lock:
                self._append(self._descriptor(event.at), (line + "\n").encode())
        except OSError as problem:
            _LOG.error("an audit message could not be written: %s", problem.strerror)

    def _append(self, descriptor: int, line: bytes) -> None:
        """One call for one line: other processes of the node append to the same file. Raises OSError."""
        if self._is_torn:  # what is there of the last line stays one of its own
            line = b"\n" + line
        written = os.write(descriptor, line)
        self._is_torn = written < len(line)
        self._is_synced = False
        if self._is_torn:
            raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes were taken")

    def _descriptor(self, at: float) -> int:
        """The open file of the day (UTC)."""
        day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
        if self._file is not None and self._file[0] == day:
            return self._file[1]
        self._close_file()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = os.open(self._folder / f"{day}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._file = (day, opened)
        return opened

    def _sync_until_stopped(self) -> None:
        while not self._stop.wait(_SYNC_EVERY_S):
            try:
                with self._lock:
                    if self._is_synced or self._file is None:
                        continue
                    self._is_synced = True
                    descriptor = os.dup(self._file[1])
                # Not under the lock: a slow disk holds up nobody who writes.
                is_synced = _flushed(descriptor)
                os.close(descriptor)
            except OSError as problem:
                _LOG.error("the audit file cannot be synced: %s", problem.strerror)
                is_synced = False
            if not is_synced:
                with self._lock:
                    self._is_synced = False

    def _close_file(self) -> None:
        """Under the lock."""
        if self._file is not None:
            if not self._is_synced:
                self._is_synced = _flushed(self._file[1])
            os.close(self._file[1])
            self._file = None


def _flushed(descriptor: int) -> bool:
    """Whether what was written has reached the disk."""
    try:
        os.fsync(descriptor)
    except OSError as problem:
        _LOG.error("the audit file has not reached the disk: %s", problem.strerror)
        return False
    return True


def _person(who: Actor) -> m.Participant:
    return m.Participant(who.name, True, address=who.address)
