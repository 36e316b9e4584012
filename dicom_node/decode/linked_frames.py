"""Frames of reference that a DICOM Spatial Registration object links: from a region's to the baseline's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.broken import BROKEN
from dicom_node.decode.files import Header
from dicom_node.refusal import Refused

SPATIAL_REGISTRATION = "1.2.840.10008.5.1.4.1.1.66.1"
DEFORMABLE_REGISTRATION = "1.2.840.10008.5.1.4.1.1.66.3"
REGISTRATION_CLASSES = (SPATIAL_REGISTRATION, DEFORMABLE_REGISTRATION)
#: Two objects that carry a region this far apart contradict each other.
_APART_MM = 0.1
_KINDS = ("RIGID", "RIGID_SCALE", "AFFINE")
#: How far a rotation may stretch or skew: 0.1 mm in 10 cm, and what numbers rounded to three decimals do.
_NOT_RIGID = 2e-3


@dataclass(frozen=True)
class Frames:
    """The frame of reference that a region lies in, and that of the baseline, where it is wanted."""

    region_uid: str
    baseline_uid: str

    @property
    def are_one(self) -> bool:
        return self.region_uid == self.baseline_uid


def frames_of(registration: Header) -> set[str]:
    """Every frame of reference that the object knows, its own included; none where it is unreadable."""
    try:
        keyword = "DeformableRegistrationSequence" if _is_deformable(registration) else "RegistrationSequence"
        items = registration.dataset.get(keyword) or ()
        own = "FrameOfReferenceUID" if not _is_deformable(registration) else "SourceFrameOfReferenceUID"
        named = {registration.text("FrameOfReferenceUID"), *(str(item.get(own) or "").strip() for item in items)}
    except BROKEN:
        return set()
    return named - {""}


def linking(registrations: Iterable[Header], frames: Frames) -> list[Header]:
    """The objects that know both frames, in the order of their UIDs."""
    found = [r for r in registrations if {frames.region_uid, frames.baseline_uid} <= frames_of(r)]
    return sorted(found, key=lambda r: r.text("SOPInstanceUID"))


def baseline_from_region(
    registrations: Sequence[Header], frames: Frames, points_lps_mm: NDArray[np.float64], key: str
) -> NDArray[np.float64]:
    """(4, 4) that carries LPS points of the region's frame to the baseline's; one where both are the same frame.

    points_lps_mm: (n, 3) around the region. Raises Refused, naming the key: region_wrong_frame where no object links
    the frames, link_unusable where one cannot be used, links_disagree where two carry the region to different places.
    """
    if frames.are_one:
        return np.eye(4)
    links = linking(registrations, frames)
    spatial = [link for link in links if not _is_deformable(link)]
    if links and not spatial:
        text = "is linked to the baseline's by a deformable registration; give a rigid or affine one."
        raise Refused("link_unusable", f"{key}: its frame of reference {text}")
    if not spatial:
        raise Refused(
            "region_wrong_frame",
            f"{key} lies in another frame of reference than the baseline series; "
            "a Spatial Registration object in the plan's folder would link them.",
        )
    matrices = [matrix for link in spatial for matrix in _matrices(link, frames, key)]
    carried = [points_lps_mm @ m[:3, :3].T + m[:3, 3] for m in matrices]
    if any(np.linalg.norm(other - carried[0], axis=-1).max() > _APART_MM for other in carried[1:]):
        text = (
            "Spatial Registration objects carry it to different places; leave the right one alone in the plan's folder."
        )
        raise Refused("links_disagree", f"{key}: {text}")
    return matrices[0]


def _is_deformable(registration: Header) -> bool:
    return registration.text("SOPClassUID") == DEFORMABLE_REGISTRATION


def _matrices(link: Header, frames: Frames, key: str) -> list[NDArray[np.float64]]:
    """Each way in which the object carries the region's frame to the baseline's."""
    try:
        to_own_from_region = _to_own(link, frames.region_uid, key)
        to_own_from_baseline = _to_own(link, frames.baseline_uid, key)
    except BROKEN as problem:
        raise _unusable(link, key, "cannot be read") from problem
    return [np.linalg.inv(b) @ r for r in to_own_from_region for b in to_own_from_baseline]


def _to_own(link: Header, frame_uid: str, key: str) -> list[NDArray[np.float64]]:
    """The matrices from a frame to the one that the object itself lies in."""
    if frame_uid == link.text("FrameOfReferenceUID"):
        return [np.eye(4)]
    items = link.dataset.RegistrationSequence
    return [
        _matrix(item, link, key) for item in items if str(item.get("FrameOfReferenceUID") or "").strip() == frame_uid
    ]


def _matrix(item: Dataset, link: Header, key: str) -> NDArray[np.float64]:
    """All matrices of an item as one, the first applied first."""
    total = np.eye(4)
    for registration in item.get("MatrixRegistrationSequence") or ():
        for step in registration.get("MatrixSequence") or ():
            kind = str(step.get("FrameOfReferenceTransformationMatrixType") or "AFFINE").strip()
            if kind not in _KINDS:
                raise _unusable(link, key, f"has a matrix of type {kind}, none of {', '.join(_KINDS)}")
            numbers = np.array(step.FrameOfReferenceTransformationMatrix, float)
            if numbers.shape != (16,) or not np.isfinite(numbers).all():
                raise _unusable(link, key, "has a matrix that is not 16 numbers")
            matrix = numbers.reshape(4, 4)
            if np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-6:
                raise _unusable(link, key, "has a matrix whose last row is not 0 0 0 1")
            if not 1e-3 < np.linalg.det(matrix[:3, :3]) < 1e3:
                raise _unusable(link, key, "has a matrix that flattens or mirrors the patient")
            if kind == "RIGID" and np.abs(matrix[:3, :3].T @ matrix[:3, :3] - np.eye(3)).max() > _NOT_RIGID:
                text = "has a matrix of type RIGID that scales or shears"
                raise _unusable(link, key, text, "with a rotation and a shift alone, or as RIGID_SCALE or AFFINE")
            total = matrix @ total
    return total


def _unusable(link: Header, key: str, what: str, how: str = "") -> Refused:
    text = f"the Spatial Registration object {link.name}, which links it to the baseline's frame of reference, {what}"
    return Refused("link_unusable", f"{key}: {text}; export it again{' ' if how else ''}{how}.")
