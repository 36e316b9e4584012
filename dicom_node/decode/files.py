"""Files and folders to DICOM headers: what can be read, and what was passed over and why."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from dicom_node.broken import BROKEN
from dicom_node.refusal import Refused

#: Enough to sort an archive into patients, studies and series; pass as `tags` where memory counts.
INDEX_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "IssuerOfPatientID",
    "Modality",
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "AcquisitionDateTime",
    "ContentDate",
    "StudyDescription",
    "SeriesDescription",
    "ImageType",
)

PixelState = Literal["present", "missing", "cut_short"]


@dataclass(frozen=True, eq=False)
class Header:
    """One DICOM file without its pixels. pixels: whether pixel data follow the header, as far as its length tells."""

    path: Path
    dataset: Dataset
    pixels: PixelState
    name: str
    """How the file is named to people: its path from the folder that was given, that folder's name included."""

    def text(self, keyword: str) -> str:
        """The element's value as stripped text; empty where missing or unreadable."""
        try:
            value = self.dataset.get(keyword)
        except BROKEN:
            return ""
        return "" if value is None else str(value).strip()

    @property
    def patient(self) -> tuple[str, str]:
        """The patient ID, and who issued it; empty where the file does not say."""
        return self.text("PatientID"), self.text("IssuerOfPatientID")

    def meta(self, keyword: str) -> str:
        """The same for the file meta information, e.g. the transfer syntax."""
        try:
            return str(self.dataset.file_meta.get(keyword) or "").strip()
        except BROKEN:
            return ""


@dataclass(frozen=True)
class Skipped:
    """A file that is no usable DICOM object. code: not_dicom, dicomdir, empty_file, unreadable, truncated_file."""

    path: Path
    code: str
    text: str


@dataclass(frozen=True, eq=False)
class Scan:
    """What lies in some folders; headers in path order."""

    headers: tuple[Header, ...]
    skipped: tuple[Skipped, ...]


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps pydicom's remarks about other people's files from the user's terminal; what matters is refused by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def scan(paths: Sequence[Path], *, tags: Sequence[str] | None = None) -> Scan:
    """Headers of all DICOM files in the files and folders given, and every other file with the reason.

    tags: read only these elements (see `INDEX_TAGS`); None reads the whole header. Nothing here is fatal except a
    path that does not exist: Refused ``path_missing``.
    """
    headers: list[Header] = []
    skipped: list[Skipped] = []
    files = list(_files(paths))
    start = _start(paths)
    for path in files:
        try:
            headers.append(read_header(path, tags=tags, name=os.path.relpath(os.path.abspath(path), start)))
        except Refused as problem:
            skipped.append(Skipped(path, problem.code, problem.text))
    return Scan(tuple(headers), tuple(skipped))


def read_header(path: Path, *, tags: Sequence[str] | None = None, name: str = "") -> Header:
    """One file's header. name: how it is named to people, else by its file name alone.

    Raises Refused: not_dicom, dicomdir, empty_file, unreadable, truncated_file.
    """
    name = name or path.name
    try:
        with path.open("rb") as file, quiet():
            kind = _kind(file)
            if kind == "empty":
                raise Refused("empty_file", f"{name} is empty; export it again.")
            if kind == "other":
                raise Refused("not_dicom", f"{name} is not a DICOM file.")
            dataset = dcmread(
                file, stop_before_pixels=True, specific_tags=None if tags is None else list(tags), force=kind == "bare"
            )
            _convert(dataset.file_meta)
            header = Header(path, dataset, _pixel_state(file, _syntax(dataset)), name)
            _convert(dataset)
    except OSError as problem:
        if problem.errno is None:  # pydicom's own, about what the bytes say
            raise Refused("truncated_file", f"{name} is cut short or broken; export it again.") from problem
        raise Refused("unreadable", f"{name} cannot be read ({problem.strerror or 'input error'}).") from problem
    except BROKEN as problem:
        raise Refused("truncated_file", f"{name} is cut short or broken; export it again.") from problem
    index = header.meta("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    if index:
        raise Refused("dicomdir", f"{name} is a DICOMDIR, an index of other files.")
    if header.pixels == "missing" and not ("SOPInstanceUID" in dataset and "StudyInstanceUID" in dataset):
        # pydicom hands out what it has read when a file ends inside its header
        if kind == "bare":
            raise Refused("not_dicom", f"{name} is not a DICOM file.")
        raise Refused("truncated_file", f"{name} is cut short or broken; export it again.")
    return header


def _syntax(dataset: Dataset) -> str:
    try:
        return str(dataset.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian)
    except BROKEN:
        return str(ImplicitVRLittleEndian)


def _convert(dataset: Dataset) -> None:
    """Converts every element now, so that pydicom's remarks about odd values come here and not at some later use.

    An element that cannot be read is left out; what needs it will say so.
    """
    for tag in list(dataset.keys()):
        try:
            dataset[tag]
        except BROKEN:
            dataset.pop(tag)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file once, folders walked in name order."""
    seen: set[str] = set()
    for path in paths:
        if not path.exists():
            raise Refused("path_missing", f"{path} does not exist; give an existing file or folder.")
        names = _walk(path) if path.is_dir() else iter((path,))
        for name in names:
            key = os.path.realpath(name)
            if key not in seen:
                seen.add(key)
                yield name


def _start(paths: Sequence[Path]) -> str:
    """Where the paths shown to people begin: above the folder that was given, or that holds all the files given."""
    folders = {os.path.abspath(path if path.is_dir() else path.parent) for path in paths}
    return os.path.dirname(os.path.commonpath(folders)) if folders else os.curdir


def _walk(folder: Path) -> Iterator[Path]:
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield Path(base, name)


def _kind(file: BinaryIO) -> Literal["dicom", "bare", "other", "empty"]:
    """What the first bytes say; ``bare`` is a DICOM data set without preamble, as old exports write it."""
    start = file.read(132)
    file.seek(0)
    if not start:
        return "empty"
    if start[128:] == b"DICM":
        return "dicom"
    return (
        "bare"
        if start[:4] in (b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x08\x00\x16\x00", b"\x02\x00\x00\x00")
        else "other"
    )


def _pixel_state(file: BinaryIO, syntax: str) -> PixelState:
    """Whether pixel data follow where pydicom stopped, and whether the file is long enough for them."""
    if syntax == DeflatedExplicitVRLittleEndian:  # pydicom has read and unpacked the whole file
        return "present"
    here = file.tell()
    head = file.read(12)
    size = os.fstat(file.fileno()).st_size
    if len(head) < 8:
        return "missing"
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    if syntax == ImplicitVRLittleEndian:
        start, length = here + 8, struct.unpack("<L", head[4:8])[0]
    elif len(head) < 12:
        return "cut_short"
    else:
        start, length = here + 12, struct.unpack(order + "L", head[8:12])[0]
    return "cut_short" if length != 0xFFFFFFFF and start + length > size else "present"
