"""Audit messages to a collector by syslog: RFC 5424 over UDP (5426), TCP (6587) or TLS (5425)."""

from __future__ import annotations

import logging
import os
import queue
import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime

from dicom_node.settings import AuditSettings

_LOG = logging.getLogger("marginwatch.audit")

#: Facility 10 (security), severity 5 (notice), as PS3.15 A.6 asks for.
_PRIORITY = 10 * 8 + 5
_MESSAGE_ID = "DICOM+RFC3881"
_TIMEOUT_S = 10.0
_WAITING_AT_MOST = 10_000
_TRY_AGAIN_AFTER_S = 5.0
#: How long the last messages may take at the stop; the file has them in any case.
_STOP_WITHIN_S = 3.0


def frame(message: str, at: float, *, host: str) -> bytes:
    """The message as one syslog line."""
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    header = f"<{_PRIORITY}>1 {moment} {host} marginwatch {os.getpid()} {_MESSAGE_ID} - "
    return header.encode("ascii", "replace") + "\ufeff".encode() + message.encode()


class SyslogSender:
    """Sends from a thread of its own, so that a collector that is away holds nobody up; tried again until it is there.

    What waits is kept in memory, the newest is dropped when that is too much: the file holds everything.
    """

    def __init__(self, settings: AuditSettings) -> None:
        self._settings = settings
        self._waiting: queue.Queue[bytes] = queue.Queue(_WAITING_AT_MOST)
        self._stop = threading.Event()
        self._socket: socket.socket | None = None
        self._is_away = False
        self._host = socket.gethostname()
        self._thread = threading.Thread(target=self._send_until_stopped, name="audit syslog", daemon=True)
        self._thread.start()

    def send(self, message: str, at: float) -> None:
        try:
            self._waiting.put_nowait(frame(message, at, host=self._host))
        except queue.Full:
            _LOG.error("the audit collector is away for too long: a message was not sent, it is in the audit file")

    def stop(self) -> None:
        """Send what waits, as far as that goes quickly."""
        self._stop.set()
        self._thread.join(_STOP_WITHIN_S)

    def _send_until_stopped(self) -> None:
        while not (self._stop.is_set() and self._waiting.empty()):
            try:
                line = self._waiting.get(timeout=0.2)
            except queue.Empty:
                continue
            while not self._sent(line):
                if self._stop.wait(_TRY_AGAIN_AFTER_S):
                    return
        self._disconnect()

    def _sent(self, line: bytes) -> bool:
        """Whether the line is on its way."""
        try:
            connection = self._connection()
            if self._settings.transport == "udp":
                connection.send(line)
            else:
                connection.sendall(f"{len(line)} ".encode() + line)
        except OSError as problem:
            self._disconnect()
            if not self._is_away:
                _LOG.error("the audit collector cannot be reached, trying again: %s", problem)
            self._is_away = True
            return False
        if self._is_away:
            _LOG.warning("the audit collector is there again")
        self._is_away = False
        return True

    def _connection(self) -> socket.socket:
        if self._socket is not None and self._was_closed(self._socket):
            self._disconnect()
        if self._socket is None:
            self._socket = self._connect()
        return self._socket

    def _was_closed(self, connection: socket.socket) -> bool:
        """Whether the collector hung up: what is sent then would be lost without an error."""
        if self._settings.transport == "udp":
            return False
        connection.setblocking(False)
        try:
            while connection.recv(1024):  # what it says is of no interest
                pass
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True
        finally:
            connection.settimeout(_TIMEOUT_S)
        return True

    def _connect(self) -> socket.socket:
        address = (self._settings.host, self._settings.port)
        if self._settings.transport == "udp":
            family, kind, protocol, _, where = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
            datagrams = socket.socket(family, kind, protocol)
            datagrams.connect(where)
            return datagrams
        plain = socket.create_connection(address, timeout=_TIMEOUT_S)
        if self._settings.transport == "tcp":
            return plain
        try:
            context = ssl.create_default_context(cafile=self._settings.ca_file or None)
            return context.wrap_socket(plain, server_hostname=self._settings.host)
        except OSError:
            plain.close()
            raise

    def _disconnect(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
            self._socket = None
