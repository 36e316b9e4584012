"""Data sets on their way into the inbox."""

from __future__ import annotations

import pytest

from dicom_node.receive.incoming import Incoming


@pytest.fixture
def filled():
    """Fills an `Incoming` with content, piece by piece."""

    def fill(incoming, content, *, piece=100_000):
        for start in range(0, len(content), piece):
            part = content[start : start + piece]
            incoming.room(len(part))[:] = part
        return incoming

    return fill


@pytest.fixture
def kept(bench, filled):
    """Puts datasets into an inbox; returns their paths."""

    def keep(inbox, datasets):
        paths = []
        for dataset in datasets:
            content = bench.file_bytes(dataset)
            paths.append(inbox.keep(filled(Incoming(b"", part=inbox.part, most_bytes=1 << 30), content)))
        return paths

    return keep
