"""The source images as the results refer to them: only what is needed, and valid whatever the scanner wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, TM

from dicom_node.study import SourceImages
from pipeline.geometry import FloatArray, Geometry

#: Patient and study attributes that the results share with the scan (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2).
_TEXT = ("PatientID", "IssuerOfPatientID", "PatientName", "StudyID", "AccessionNumber", "StudyDescription")
_DATES = ("PatientBirthDate", "StudyDate")
SHARED = (
    *_TEXT,
    *_DATES,
    "ReferringPhysicianName",
    "PatientSex",
    "PatientAge",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyTime",
    "StudyInstanceUID",
)
_REQUIRED_EMPTY = ("PatientID", "PatientName", "StudyID", "AccessionNumber", "ReferringPhysicianName")
_AGE = re.compile(r"\d{3}[DWMY]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SLICE_TOLERANCE_MM = 0.1


def patient_and_study(source: Dataset) -> Dataset:
    """The patient and study attributes of a source image, in UTF-8; what is missing or broken is there, but empty."""
    head = Dataset()
    head.SpecificCharacterSet = "ISO_IR 192"
    for keyword in (*_TEXT, "ReferringPhysicianName"):
        value = _text(source.get(keyword))
        if value or keyword in _REQUIRED_EMPTY:
            setattr(head, keyword, value)
    for keyword in _DATES:
        setattr(head, keyword, _valid(source.get(keyword), DA))
    head.StudyTime = _valid(source.get("StudyTime"), TM)
    sex = _text(source.get("PatientSex")).strip().upper()
    head.PatientSex = sex if sex in ("M", "F", "O") else ""
    if _AGE.fullmatch(age := _text(source.get("PatientAge"))):
        head.PatientAge = age
    if _text(source.get("PatientIdentityRemoved")) == "YES" and (how := _text(source.get("DeidentificationMethod"))):
        head.PatientIdentityRemoved, head.DeidentificationMethod = "YES", how[:64]
    head.StudyInstanceUID = source.StudyInstanceUID
    return head


def source_heads(sources: SourceImages, slices: tuple[int, int] | None = None) -> tuple[Dataset, ...]:
    """The source images without pixels, as highdicom wants them; those of a range of slices where one is given.

    Where the volume's slices are the source images, each head carries exactly the volume's position and orientation,
    so that rounding in the headers cannot part a mask from its image.
    """
    geometry, headers = sources.geometry, sources.headers
    shared = patient_and_study(headers[0])
    matched = is_matched(sources)
    multiframe = int(headers[0].get("NumberOfFrames") or 1) > 1
    chosen = range(*slices) if slices is not None and matched and not multiframe else range(len(headers))
    heads = []
    for k in chosen:
        source = headers[k]
        head = _image_head(source, shared, geometry.frame_uid)
        if multiframe:
            _add_frames(head, source, geometry)
        else:
            head.update(_plane(geometry, k) if matched else _own_plane(source, headers[0], geometry))
        heads.append(head)
    return tuple(heads)


def is_matched(sources: SourceImages) -> bool:
    """Whether each slice of the volume is one source image, at the place that its header says."""
    geometry, headers = sources.geometry, sources.headers
    if not sources.match_grid or (headers[0].get("Rows"), headers[0].get("Columns")) != geometry.shape[1:]:
        return False
    if len(headers) == 1 and int(headers[0].get("NumberOfFrames") or 1) > 1:
        return True
    if len(headers) != geometry.shape[0]:
        return False
    said = np.array([header.get("ImagePositionPatient", (np.nan,) * 3) for header in headers], float)
    index = np.stack([np.arange(len(headers)), np.zeros(len(headers)), np.zeros(len(headers))], axis=-1)
    return bool(np.abs(said - geometry.lps_of(index)).max() < _SLICE_TOLERANCE_MM)


def orientation_of(geometry: Geometry) -> list[str]:
    """Image Orientation (Patient) of the grid's slices: direction along a row, then down a column."""
    axes = geometry.lps_from_index[:3, :3] / geometry.spacing_mm
    return [decimal(x) for x in (*axes[:, 2], *axes[:, 1])]


def decimal(value: float) -> str:
    """A DS of at most 16 characters."""
    text = f"{round(float(value), 8) + 0.0:.12g}"
    return text if len(text) <= 16 else f"{float(value):.9g}"


def _image_head(source: Dataset, shared: Dataset, frame_uid: str) -> Dataset:
    head = Dataset()
    head.update(shared)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "NumberOfFrames"):
        if source.get(keyword):
            setattr(head, keyword, source.get(keyword))
    head.Modality = _text(source.get("Modality")) or "OT"
    head.FrameOfReferenceUID, head.PositionReferenceIndicator = frame_uid, ""
    for keyword in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions"):
        if value := _text(source.get(keyword)):
            setattr(head, keyword, value[:64])
    if _text(source.get("LossyImageCompression")) == "01":
        for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if source.get(keyword):
                setattr(head, keyword, source.get(keyword))
    return head


def _plane(geometry: Geometry, k: int) -> Dataset:
    plane = Dataset()
    plane.ImagePositionPatient = [decimal(x) for x in geometry.lps_of((k, 0, 0))]
    plane.ImageOrientationPatient = orientation_of(geometry)
    plane.PixelSpacing = [decimal(x) for x in geometry.spacing_mm[1:]]
    plane.SliceThickness = plane.SpacingBetweenSlices = decimal(geometry.spacing_mm[0])
    return plane


def _own_plane(source: Dataset, first: Dataset, geometry: Geometry) -> Dataset:
    """Where the volume was resampled: the slice as its header says, all with the first one's orientation."""
    plane = _plane(geometry, 0)
    for keyword, holder in (("ImagePositionPatient", source), ("ImageOrientationPatient", first)):
        if holder.get(keyword):
            setattr(plane, keyword, [decimal(x) for x in holder.get(keyword)])
    return plane


def _add_frames(head: Dataset, source: Dataset, geometry: Geometry) -> None:
    """Orientation and spacing of the volume, shared (scanners also write them per frame); positions of the source."""
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = orientation_of(geometry)
    measures.PixelSpacing = [decimal(x) for x in geometry.spacing_mm[1:]]
    measures.SliceThickness = measures.SpacingBetweenSlices = decimal(geometry.spacing_mm[0])
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    head.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for group in source.PerFrameFunctionalGroupsSequence:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [decimal(x) for x in _nearest_slice(_position(group, source), geometry)]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    head.PerFrameFunctionalGroupsSequence = frames


def _position(group: Dataset, source: Dataset) -> Sequence[float]:
    for holder in (group, source.SharedFunctionalGroupsSequence[0]):
        if holder.get("PlanePositionSequence"):
            return [float(x) for x in holder.PlanePositionSequence[0].ImagePositionPatient]
    return (0.0, 0.0, 0.0)


def _nearest_slice(position: Sequence[float], geometry: Geometry) -> FloatArray:
    """The exact corner of the slice that the frame is, or its own position where it is none of the volume's."""
    slice_index = round(float(geometry.index_of(position)[0]))
    corner = geometry.lps_of((slice_index, 0, 0))
    said = np.asarray(position, float)
    return corner if float(np.abs(corner - said).max()) < _SLICE_TOLERANCE_MM else said


def _text(value: Any) -> str:
    """A value as text without control characters; several values (a stray backslash) joined by a slash."""
    if value is None:
        return ""
    parts = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    return _CONTROL.sub("", "/".join(str(part) for part in parts)).strip()


def _valid(value: Any, kind: type[DA] | type[TM]) -> str:
    """A date or time as the standard writes it, or nothing where it cannot be read."""
    text = _text(value)
    try:
        parsed = kind(text) if text else None
    except ValueError:
        return ""
    if parsed is None:
        return ""
    return f"{parsed:%Y%m%d}" if kind is DA else text
