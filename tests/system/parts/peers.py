"""Troubles with a PACS: a way to it that can be cut or slow, and one that rejects what it likes."""

from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from fleet import free_port
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts


class Wire:
    """A way to the PACS that can be cut (nobody answers, what runs is broken off) or slow."""

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self.cut = self.slow = False
        self._target_port = target_port
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_now(self) -> None:
        self.cut = True
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            near, _ = self._server.accept()
            if self.cut:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target_port))
            self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                if self.slow:
                    time.sleep(0.3)
                sink.sendall(data)
        for connection in (source, sink):
            self._open.discard(connection)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


class Rejecter:
    """A PACS that now and then has no room (A700), or breaks off; keeps the UIDs of what it has taken."""

    def __init__(self, seed: int) -> None:
        self.port = free_port()
        self.rejects = False
        self.taken: set[tuple[str, str]] = set()
        self.rejected = 0
        self._random = random.Random(seed)
        ae = AE(ae_title="REJECTER")
        ae.supported_contexts = AllStoragePresentationContexts
        self._server = ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )

    def stop(self) -> None:
        self._server.shutdown()

    def _store(self, event: Any) -> int:
        if self._random.random() < (0.9 if self.rejects else 0.05):
            self.rejected += 1
            if self._random.random() < 0.3:
                event.assoc.abort()
            return 0xA700
        self.taken.add((str(event.dataset.StudyInstanceUID), str(event.request.AffectedSOPInstanceUID)))
        return 0x0000
