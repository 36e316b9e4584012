"""Regions named by a plan, in every form they come in, to a `Mask` in the baseline's frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import RTStructureSetStorage
from scipy import ndimage

from dicom_node.broken import BROKEN
from dicom_node.decode.contour_planes import Outline
from dicom_node.decode.contours import contours_of, roi_frame_uid, roi_voxels
from dicom_node.decode.files import Header, quiet
from dicom_node.decode.linked_frames import Frames, baseline_from_region
from dicom_node.decode.nifti_image import is_in_mask, read_nifti
from dicom_node.decode.placement import beyond_zero, placed
from dicom_node.decode.region_ref import RegionRef, Threshold
from dicom_node.decode.segment import SEGMENTATION_CLASSES, segment_voxels
from dicom_node.decode.temperature_map import TEMPERATURE_CLASSES, check_celsius, read_temperature
from dicom_node.records import same_patient
from dicom_node.refusal import Refused
from pipeline.geometry import FloatArray, Geometry
from pipeline.volume import Mask

_Grid = tuple[NDArray[np.bool_], Geometry]
#: Regions that a label map may hold in parts, e.g. a liver beside its tumor.
_JOIN_LABELS = ("organ_mask", "vessel_mask")


@dataclass(frozen=True, eq=False)
class RegionSource:
    """Where a plan's regions lie. objects: the DICOM headers of the plan's folder by SOP Instance UID.

    issuer_of_patient_id: empty where the plan does not say; registrations: those of the objects that link frames of
    reference; absent: where an object was looked for that is not
    there, as it is told.
    """

    folder: Path
    patient_id: str
    objects: Mapping[str, Header]
    registrations: tuple[Header, ...] = ()
    absent: str = "not in the plan's folder"
    issuer_of_patient_id: str = ""


def read_region(ref: RegionRef, source: RegionSource, baseline: Geometry) -> Mask:
    """The region, on the baseline's grid where its own grid fits into that, else on its own with room around it.

    Raises Refused, naming the key: region_missing, region_wrong_frame, link_unusable, links_disagree,
    region_unreadable, empty_region, patient_mismatch.
    """
    with _reading(ref):
        voxels, geometry = _read(ref, source, baseline)
    if not voxels.any():
        raise _empty(ref)
    mask = placed(voxels, geometry, baseline)
    if mask.is_empty:  # a region on tilted slices, put on the baseline's grid
        raise _nothing_left(ref)
    return mask


def check_region(ref: RegionRef, source: RegionSource) -> None:
    """Raises Refused as `read_region` does, for all that can be told without the baseline: not whether it lies in
    its frame and its scan."""
    region_box(ref, source)


def region_box(ref: RegionRef, source: RegionSource) -> FloatArray:
    """(2, 3) LPS, least and greatest coordinates of the region in its own frame. Raises Refused as `check_region`."""
    with _reading(ref):
        if ref.roi_number is not None:
            contours = contours_of(_object(ref, source), ref.roi_number, ref.key)
            points = np.concatenate([contour.points for contour in contours]) if contours else np.zeros((0, 3))
        else:
            if ref.threshold is not None:
                level, geometry = _level(ref, ref.threshold, source, "")
                voxels = np.asarray(level >= 0)
            elif ref.path is not None:
                voxels, geometry = _nifti(ref, source.folder, "")
            else:
                voxels, geometry = segment_voxels(_object(ref, source), int(ref.segment_number or 0), ref.key)
            points = _corners(voxels, geometry) if voxels.any() else np.zeros((0, 3))
    if not len(points):
        raise _empty(ref)
    return np.array([points.min(axis=0), points.max(axis=0)])


def region_file(ref: RegionRef, source: RegionSource) -> Path:
    """The file that holds the region. Raises Refused, naming the key: region_missing, region_unreadable,
    patient_mismatch.
    """
    return _nifti_file(ref, source.folder) if ref.path is not None else _object(ref, source).path


def region_frame_uid(ref: RegionRef, source: RegionSource) -> str | None:
    """The frame of reference that the region lies in; None for NIfTI, which is taken to lie in the baseline's. Raises
    Refused as `region_file`.
    """
    if ref.path is not None:
        return None
    header = _object(ref, source)
    with _reading(ref):
        if ref.roi_number is not None:
            return roi_frame_uid(header, ref.roi_number, ref.key)
        return header.text("FrameOfReferenceUID")


@contextmanager
def _reading(ref: RegionRef) -> Iterator[None]:
    """Turns what broken bytes raise into a refusal that names the region, and names it in the refusal of a file."""
    try:
        with quiet(), np.errstate(invalid="ignore", over="ignore"):  # coordinates that are no number are refused below
            yield
    except Refused as refused:
        if refused.text.startswith(ref.key):
            raise
        raise Refused(refused.code, f"{ref.key}: {refused.text}") from refused
    except BROKEN as problem:
        raise Refused("region_unreadable", f"{ref.key}: the region cannot be read; export it again.") from problem


def _empty(ref: RegionRef) -> Refused:
    if ref.threshold is not None:
        word = "at or below" if ref.threshold.side == "at_most_c" else "at or above"
        text = f"the temperature map is nowhere {word} {ref.threshold.value_c:g} °C; check map and threshold."
        return Refused("empty_region", f"{ref.key}: {text}")
    return Refused("empty_region", f"{ref.key}: the region is empty; draw it again.")


def _nothing_left(ref: RegionRef) -> Refused:
    text = "nothing of the region is left on the baseline scan: it lies outside it, or is thinner than its voxels"
    return Refused("empty_region", f"{ref.key}: {text}; check the baseline series or draw it again.")


def _read(ref: RegionRef, source: RegionSource, baseline: Geometry) -> _Grid:
    """Voxels and their grid in the baseline's frame of reference; nothing is drawn where all are False."""
    if ref.roi_number is not None:
        return _structure(ref, ref.roi_number, source, baseline)
    if ref.threshold is not None:
        level, geometry = _level(ref, ref.threshold, source, baseline.frame_uid)
        voxels, geometry = beyond_zero(level, geometry, baseline)
    elif ref.path is not None:
        return _nifti(ref, source.folder, baseline.frame_uid)
    else:
        voxels, geometry = segment_voxels(_object(ref, source), int(ref.segment_number or 0), ref.key)
    return voxels, _carried(voxels, geometry, source, baseline.frame_uid, ref.key)


def _structure(ref: RegionRef, number: int, source: RegionSource, baseline: Geometry) -> _Grid:
    header = _object(ref, source)
    contours = contours_of(header, number, ref.key)
    frames = Frames(roi_frame_uid(header, number, ref.key), baseline.frame_uid)
    points = np.concatenate([contour.points for contour in contours]) if contours else np.zeros((1, 3))
    carry = baseline_from_region(source.registrations, frames, points, ref.key)
    if not contours:
        raise _empty(ref)
    if not frames.are_one:
        contours = [Outline(c.points @ carry[:3, :3].T + carry[:3, 3], c.is_xor) for c in contours]
    voxels, geometry = roi_voxels(contours, ref.key, baseline)
    if not voxels.any():
        raise _nothing_left(ref)
    return voxels, geometry


def _carried(
    voxels: NDArray[np.bool_], geometry: Geometry, source: RegionSource, baseline_frame_uid: str, key: str
) -> Geometry:
    """The grid in the baseline's frame of reference."""
    frames = Frames(geometry.frame_uid, baseline_frame_uid)
    if frames.are_one:
        return geometry
    carry = baseline_from_region(source.registrations, frames, _corners(voxels, geometry), key)
    return Geometry(geometry.shape, carry @ geometry.lps_from_index, baseline_frame_uid)


def _corners(voxels: NDArray[np.bool_], geometry: Geometry) -> FloatArray:
    """(8, 3) LPS corners of the region's box; of the whole grid where nothing is drawn."""
    found = ndimage.find_objects(voxels.astype(np.uint8))
    part = geometry.crop([s.start for s in found[0]], [s.stop for s in found[0]]) if found else geometry
    return part.corners_lps()


def _level(
    ref: RegionRef, threshold: Threshold, source: RegionSource, nifti_frame_uid: str
) -> tuple[NDArray[np.float32], Geometry]:
    """How far each voxel of a temperature map is beyond the threshold (°C, negative where it is not); NaN unknown."""
    if ref.path is not None:
        values, geometry = read_nifti(_nifti_file(ref, source.folder), nifti_frame_uid, ref.key)
        if not (values > 1).any() and not (values < 0).any():
            text = f"{ref.path} is a mask, no temperature map; leave {threshold.side} out"
            raise Refused("region_unreadable", f"{ref.key}.path: {text}.")
        check_celsius(values, ref.key)
    else:
        values, geometry = read_temperature(_object(ref, source), ref.key)
    return np.asarray(threshold.sign * (values.astype(np.float32) - np.float32(threshold.value_c))), geometry


def _object(ref: RegionRef, source: RegionSource) -> Header:
    """The DICOM object that holds the region: an RTSTRUCT for an ROI, a map for a threshold, else a SEG."""
    header = source.objects.get(ref.sop_instance_uid)
    if header is None:
        raise Refused("region_missing", f"{ref.key}.sop_instance_uid names an object that is {source.absent}.")
    if not same_patient(*header.patient, source):
        raise Refused("patient_mismatch", f"{ref.key} names an object of another patient than the plan's.")
    kinds: tuple[str, ...]
    if ref.roi_number is not None:
        name, kinds, what = "roi_number", (str(RTStructureSetStorage),), "an RTSTRUCT"
    elif ref.threshold is not None:
        name, kinds, what = ref.threshold.side, TEMPERATURE_CLASSES, "an RT Dose or a Parametric Map"
    else:
        name, kinds, what = "segment_number", SEGMENTATION_CLASSES, "a DICOM SEG"
    if header.text("SOPClassUID") not in kinds:
        raise Refused("region_unreadable", f"{ref.key}.{name} needs {what}; the object named is none.")
    return header


def _nifti(ref: RegionRef, folder: Path, frame_uid: str) -> _Grid:
    """NIfTI carries no frame of reference: it is taken to be the baseline's, `frame_uid`."""
    values, geometry = read_nifti(_nifti_file(ref, folder), frame_uid, ref.key)
    if ref.label is None:
        name, joins = f"{ref.key}.path: {ref.path}", ref.key in _JOIN_LABELS
        return is_in_mask(values, name, joins_labels=joins), geometry
    voxels = np.asarray(np.round(values) == ref.label)
    if not voxels.any():
        labels = [f"{n:g}" for n in np.unique(np.round(values)) if n > 0]
        known = ", ".join(labels[:20]) or "none"
        raise Refused("region_missing", f"{ref.key}.label {ref.label} is not in {ref.path}; it has {known}.")
    return voxels, geometry


def _nifti_file(ref: RegionRef, folder: Path) -> Path:
    named = Path(str(ref.path))
    path = folder / named
    leads_out = named.is_absolute() or ".." in named.parts or not path.resolve().is_relative_to(folder.resolve())
    if leads_out:
        raise Refused("region_missing", f"{ref.key}.path must stay inside the plan's folder.")
    if path.is_dir():
        raise Refused("region_unreadable", f"{ref.key}.path: {ref.path} is a folder; name a NIfTI file.")
    if not path.is_file():
        raise Refused("region_missing", f"{ref.key}.path names a file that does not exist.")
    return path
