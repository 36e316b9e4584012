"""What a DICOM file holds, as hashes: its data set, and apart from that all that comes before it."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_PREAMBLE_BYTES = 132
_LONG_LENGTHS = (b"OB", b"OW", b"UN", b"UT", b"SQ")


@dataclass(frozen=True)
class FileDigest:
    """SHA-256 in hex. head: preamble and file meta, which every program writes anew; dataset: as it is encoded."""

    head: str
    dataset: str


def digest_of(path: Path) -> FileDigest | None:
    """The file's hashes; None where there is no such file. A file without preamble and file meta is all data set.

    Raises OSError for a file that is there and cannot be read at the moment: a full descriptor table, a disk or a
    network that is away. It must not be taken for lost.
    """
    try:
        with path.open("rb") as file:
            start = start_of_dataset(file)
            file.seek(0)
            head = hashlib.sha256(file.read(start)).hexdigest()
            return FileDigest(head, hashlib.file_digest(file, "sha256").hexdigest())
    except FileNotFoundError:
        return None


def start_of_dataset(file: BinaryIO) -> int:
    """Where the elements of group 0002 end. They are counted: the length that the file states is often wrong."""
    if not file.read(_PREAMBLE_BYTES).endswith(b"DICM"):
        file.seek(0)
    while True:
        here = file.tell()
        tag = file.read(8)
        if len(tag) < 8 or tag[:2] != b"\x02\x00":
            return here
        if not tag[4:6].isalpha():  # implicit VR, against the standard
            length = struct.unpack("<L", tag[4:8])[0]
        elif tag[4:6] in _LONG_LENGTHS:
            length = int.from_bytes(file.read(4), "little")
        else:
            length = struct.unpack("<H", tag[6:8])[0]
        file.seek(length, 1)
