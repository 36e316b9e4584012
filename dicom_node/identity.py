"""Who an instance is and when it was taken, read from the first elements of its dataset, never from pixel data."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from io import BytesIO
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_node.broken import BROKEN
from dicom_node.digest import start_of_dataset
from dicom_node.records import Identity
from dicom_node.refusal import Refused

_LAST_TAG_NEEDED = 0x0020000E
_MOST_BYTES = 1 << 20
#: When the images were taken, and what the study says of it; best first.
_OWN_DAY = ("AcquisitionDateTime", "AcquisitionDate")
_STUDY_DAY = ("StudyDate", "SeriesDate", "ContentDate")


def identity_of(dataset: Dataset) -> Identity:
    """The identity in a dataset's header. Raises `Refused` where a UID is missing or not one."""

    def text(keyword: str) -> str:
        value = dataset.get(keyword)
        return "" if value is None else str(value).strip().rstrip("\0")

    acquired = acquired_on(text)
    return Identity(
        sop_instance_uid=text("SOPInstanceUID"),
        sop_class_uid=text("SOPClassUID"),
        study_instance_uid=text("StudyInstanceUID"),
        series_instance_uid=text("SeriesInstanceUID"),
        patient_id=text("PatientID"),
        acquired=acquired.strftime("%Y%m%d") if acquired else "",
        issuer_of_patient_id=text("IssuerOfPatientID"),
    )


def acquired_on(text: Callable[[str], str]) -> date | None:
    """The day of acquisition; the study's day where the tags are more than a day apart (shifted in de-identification).

    text: an element's value by its keyword, empty where it is missing. None where no element holds a date.
    """
    own = next((day for day in (_day(text(keyword)) for keyword in _OWN_DAY) if day), None)
    study = next((day for day in (_day(text(keyword)) for keyword in _STUDY_DAY) if day), None)
    if own is None or study is None:
        return own or study
    return own if abs(own - study) <= timedelta(days=1) else study


def read_identity(encoded: bytes, transfer_syntax_uid: str) -> Identity:
    """The identity in an encoded dataset (without file meta). Raises `Refused` for bytes that are no dataset."""
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        encoded = _inflated_start(encoded)
    try:
        header = read_dataset(
            BytesIO(encoded),
            is_implicit_VR=transfer_syntax_uid == ImplicitVRLittleEndian,
            is_little_endian=transfer_syntax_uid != ExplicitVRBigEndian,
            stop_when=_is_past_identity,
        )
        return identity_of(header)
    except BROKEN as problem:
        raise Refused("broken_dataset", f"The dataset cannot be read: {problem}.") from None


@dataclass(frozen=True)
class FileIdentity:
    """Whose a DICOM file is. start_bytes: where its data set begins; source_ae_title: who sent it, empty where the file
    does not say.
    """

    identity: Identity
    transfer_syntax_uid: str
    start_bytes: int
    source_ae_title: str = ""


def identity_of_file(file: BinaryIO) -> FileIdentity:
    """Whose the file is, by its first MiB: nothing more is read or inflated. Raises `Refused`, and OSError."""
    start = start_of_dataset(file)
    file.seek(0)
    head = file.read(start)
    try:
        elements = BytesIO(head.removeprefix(head[:128] + b"DICM"))
        meta = read_dataset(elements, is_implicit_VR=False, is_little_endian=True)
        syntax, source = str(meta.TransferSyntaxUID), str(meta.get("SourceApplicationEntityTitle") or "")
    except BROKEN:
        raise Refused("broken_dataset", "This is no DICOM file with its transfer syntax.") from None
    return FileIdentity(read_identity(file.read(_MOST_BYTES), syntax), syntax, start, source)


def _day(text: str) -> date | None:
    """The day that a DICOM date or date and time begins with."""
    try:
        return datetime.strptime(text[:8] + "+0000", "%Y%m%d%z").date() if len(text) >= 8 else None
    except ValueError:
        return None


def _is_past_identity(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return bool(tag > _LAST_TAG_NEEDED)


def _inflated_start(encoded: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(encoded, _MOST_BYTES)
    except zlib.error as problem:
        raise Refused("broken_dataset", f"The deflated dataset cannot be read: {problem}.") from None
