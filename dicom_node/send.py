"""Results to a PACS by C-STORE. Sending again is harmless: the objects keep their UIDs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom.presentation import build_context

from dicom_node.connection import Called, connect
from dicom_node.settings import Destination

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
    called = Called(destination.ae_title, destination.host, destination.port)
    try:
        offered = [build_context(sop_class, syntax) for sop_class, syntax in sorted(contexts)]
        association = connect(called, calling_ae_title, offered)
    except (ValueError, RuntimeError) as problem:
        raise NotSent(f"{destination.name} cannot be spoken to: {problem}") from None
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
