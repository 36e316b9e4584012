"""Results to a PACS by C-STORE. Sending again is harmless: the objects keep their UIDs."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from dicom_node.settings import Destination

_TIMEOUT_S = 30.0
#: The peer has an instance of this UID already: it took ours, and its answer was lost (decision 0061).
DUPLICATE = 0x0111
_WARNINGS = range(0xB000, 0xC000)


class NotSent(Exception):
    """The peer did not take everything; text: what it answered."""


def send_files(files: Sequence[Path], destination: Destination, *, calling_ae_title: str) -> int:
    """How many objects the destination has stored: all of them. Raises `NotSent` otherwise.

    Each file is offered in the transfer syntax it is stored in; nothing is decoded.
    """
    datasets = []
    for file in files:
        try:
            datasets.append(dcmread(file))
        except (OSError, InvalidDicomError) as problem:
            raise NotSent(f"{file.name} cannot be read: {problem}") from None
    if not datasets:
        return 0
    contexts = {(str(d.file_meta.MediaStorageSOPClassUID), str(d.file_meta.TransferSyntaxUID)) for d in datasets}
    ae = AE(ae_title=calling_ae_title)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _TIMEOUT_S
    association = ae.associate(
        destination.host,
        destination.port,
        contexts=[build_context(sop_class, syntax) for sop_class, syntax in sorted(contexts)],
        ae_title=destination.ae_title,
        max_pdu=0,
        evt_handlers=[(evt.EVT_CONN_OPEN, send_without_delay)],
    )
    if not association.is_established:
        raise NotSent(f"{destination.name} cannot be reached or refuses the association")
    try:
        for file, dataset in zip(files, datasets, strict=True):
            try:
                status = association.send_c_store(dataset).get("Status")
            except (ValueError, RuntimeError) as problem:
                raise NotSent(f"{destination.name} does not take {file.name}: {problem}") from None
            if status is None:
                raise NotSent(f"{destination.name} broke the association off at {file.name}")
            if status not in (0x0000, DUPLICATE) and status not in _WARNINGS:
                raise NotSent(f"{destination.name} answered {status:#06x} to {file.name}")
    finally:
        association.release()
    return len(datasets)


def sop_instance_of(file: Path) -> tuple[str, str]:
    """The SOP Class and Instance UID of a result. Raises `NotSent`."""
    try:
        meta = dcmread(file, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).file_meta
    except (OSError, InvalidDicomError) as problem:
        raise NotSent(f"{file.name} cannot be read: {problem}") from None
    return str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)


def send_without_delay(event: Any) -> None:
    """Switch Nagle's algorithm off: with it, each small PDU waits for the peer's delayed acknowledgement."""
    connection = event.assoc.dul.socket.socket
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
