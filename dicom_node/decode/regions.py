"""Regions named by a plan: a SEG segment, an RTSTRUCT ROI or a NIfTI file, to a `Mask` in the baseline's frame."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from pydicom.uid import RTStructureSetStorage
from scipy import ndimage

from dicom_node.broken import BROKEN
from dicom_node.decode.contours import contours_of, roi_voxels
from dicom_node.decode.files import Header, quiet
from dicom_node.decode.segment import SEGMENTATION_CLASSES, segment_voxels
from dicom_node.nifti import lps_from_index
from dicom_node.refusal import Refused
from pipeline.geometry import Geometry
from pipeline.volume import Mask

#: Background kept around a region on a grid of its own, so that distances to it are right this far out.
_ROOM_MM = 40.0


@dataclass(frozen=True)
class RegionRef:
    """Where a region is to be found. key: its path in plan.json, named in every refusal."""

    key: str
    sop_instance_uid: str = ""
    segment_number: int | None = None
    roi_number: int | None = None
    path: str | None = None


@dataclass(frozen=True, eq=False)
class RegionSource:
    """Where a plan's regions lie. objects: the DICOM headers of the plan's folder by SOP Instance UID."""

    folder: Path
    patient_id: str
    objects: Mapping[str, Header]


def read_region(ref: RegionRef, source: RegionSource, baseline: Geometry) -> Mask:
    """The region, on the baseline's grid where its own grid fits into that, else on its own with room around it.

    Raises Refused, naming the key: region_missing, region_wrong_frame, region_unreadable, empty_region,
    patient_mismatch.
    """
    with _reading(ref):
        voxels, geometry = _read(ref, source, baseline)
    if not voxels.any():
        raise _empty(ref)
    mask = _placed(voxels, geometry, baseline)
    if mask.is_empty:  # a region on tilted slices, put on the baseline's grid
        text = "nothing of the region is left on the baseline scan: it lies outside it, or is thinner than its voxels"
        raise Refused("empty_region", f"{ref.key}: {text}; check the baseline series or draw it again.")
    return mask


def check_region(ref: RegionRef, source: RegionSource) -> None:
    """Raises Refused as `read_region` does, for all that can be told without the baseline: not whether it lies in
    its frame and its scan."""
    with _reading(ref):
        if ref.path is not None:
            found = bool(_nifti(ref, source.folder, "")[0].any())
        else:
            header = _object(ref, source)
            if ref.roi_number is not None:
                found = bool(contours_of(header, ref.roi_number, ref.key))
            else:
                own_frame = header.text("FrameOfReferenceUID")
                found = bool(segment_voxels(header, int(ref.segment_number or 0), ref.key, own_frame)[0].any())
    if not found:
        raise _empty(ref)


def region_file(ref: RegionRef, source: RegionSource) -> Path:
    """The file that holds the region. Raises Refused, naming the key: region_missing, region_unreadable,
    patient_mismatch.
    """
    return _nifti_file(ref, source.folder) if ref.path is not None else _object(ref, source).path


@contextmanager
def _reading(ref: RegionRef) -> Iterator[None]:
    """Turns what broken bytes raise into a refusal that names the region."""
    try:
        with quiet():
            yield
    except Refused:
        raise
    except BROKEN as problem:
        raise Refused("region_unreadable", f"{ref.key}: the region cannot be read; export it again.") from problem


def _empty(ref: RegionRef) -> Refused:
    return Refused("empty_region", f"{ref.key}: the region is empty; draw it again.")


def _read(ref: RegionRef, source: RegionSource, baseline: Geometry) -> tuple[NDArray[np.bool_], Geometry]:
    if ref.path is not None:
        return _nifti(ref, source.folder, baseline.frame_uid)
    header = _object(ref, source)
    if ref.roi_number is not None:
        return roi_voxels(header, ref.roi_number, ref.key, baseline), baseline
    return segment_voxels(header, int(ref.segment_number or 0), ref.key, baseline.frame_uid)


def _object(ref: RegionRef, source: RegionSource) -> Header:
    """The DICOM object that holds the region: an RTSTRUCT for an ROI, else a SEG."""
    header = source.objects.get(ref.sop_instance_uid)
    if header is None:
        raise Refused("region_missing", f"{ref.key}.sop_instance_uid names an object that is not in the plan's folder.")
    if header.text("PatientID") != source.patient_id:
        raise Refused("patient_mismatch", f"{ref.key} names an object of another patient than the plan's.")
    kind = header.text("SOPClassUID")
    if ref.roi_number is not None and kind != RTStructureSetStorage:
        raise Refused("region_unreadable", f"{ref.key}.roi_number needs an RTSTRUCT; the object named is none.")
    if ref.roi_number is None and kind not in SEGMENTATION_CLASSES:
        raise Refused("region_unreadable", f"{ref.key}.segment_number needs a DICOM SEG; the object named is none.")
    return header


def _nifti(ref: RegionRef, folder: Path, frame_uid: str) -> tuple[NDArray[np.bool_], Geometry]:
    """NIfTI carries no frame of reference: it is taken to be the baseline's, `frame_uid`."""
    voxels, geometry = read_nifti(_nifti_file(ref, folder), frame_uid, ref.key)
    return voxels >= 0.5, geometry


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


def read_nifti(path: Path, frame_uid: str, key: str) -> tuple[NDArray[Any], Geometry]:
    """A NIfTI image's values ``[k, j, i]`` and its grid in LPS. Raises Refused ``region_unreadable``, naming `key`."""
    try:
        image: Any = nib.load(path)
        values = np.asanyarray(image.dataobj)
        placed = int(image.header["sform_code"]) > 0 or int(image.header["qform_code"]) > 0
    except (ImageFileError, OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as problem:
        raise Refused("region_unreadable", f"{key}: {path.name} is no readable NIfTI image.") from problem
    if values.ndim > 3 and max(values.shape[3:]) == 1:
        values = values.reshape(values.shape[:3])
    if values.ndim != 3 or not placed:
        raise Refused("region_unreadable", f"{key}: {path.name} is no three-dimensional image with a position.")
    voxels = np.ascontiguousarray(values.T)
    shape = (voxels.shape[0], voxels.shape[1], voxels.shape[2])
    try:
        return voxels, Geometry(shape, lps_from_index(image.affine), frame_uid)
    except ValueError as problem:
        raise Refused("region_unreadable", f"{key}: {path.name} lies on no regular grid ({problem}).") from problem


def _placed(voxels: NDArray[np.bool_], geometry: Geometry, baseline: Geometry) -> Mask:
    """The region cut to what is inside and put on the baseline's grid, or on its own grid with room around it."""
    box = ndimage.find_objects(voxels.astype(np.uint8))[0]
    part = geometry.crop([s.start for s in box], [s.stop for s in box])
    inside = voxels[box]
    if _fits(part, baseline):
        return Mask(inside, part).embedded_in(baseline)
    if not _right_angled(part):
        return _sampled(inside, part, baseline)
    room = np.ceil(_ROOM_MM / part.spacing_mm).astype(int)
    matrix = part.lps_from_index.copy()
    matrix[:3, 3] = part.lps_of(-room)
    padded = np.pad(inside, [(n, n) for n in room])
    return Mask(padded, Geometry((padded.shape[0], padded.shape[1], padded.shape[2]), matrix, part.frame_uid))


def _fits(part: Geometry, baseline: Geometry) -> bool:
    """Whether the part's voxels are voxels of the baseline (to a hundredth of a voxel at every corner)."""
    corners = np.array(
        [[k, j, i] for k in (0, part.shape[0] - 1) for j in (0, part.shape[1] - 1) for i in (0, part.shape[2] - 1)]
    )
    index = baseline.index_of(part.lps_of(corners))
    first = np.round(index[0])
    if (first < 0).any() or (first + part.shape > np.array(baseline.shape)).any():
        return False
    return bool(np.abs(index - corners - first).max() < 0.01) and bool(
        np.allclose(part.lps_from_index[:3, :3], baseline.lps_from_index[:3, :3], atol=1e-3)
    )


def _right_angled(geometry: Geometry) -> bool:
    axes = geometry.lps_from_index[:3, :3] / geometry.spacing_mm
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() < 1e-2)


def _sampled(voxels: NDArray[np.bool_], geometry: Geometry, baseline: Geometry) -> Mask:
    """A region drawn on tilted slices, on the baseline's upright grid."""
    padded = np.pad(voxels, 1).astype(np.float32)
    to_part = geometry.index_from_lps @ baseline.lps_from_index
    values = ndimage.affine_transform(
        padded, to_part[:3, :3], to_part[:3, 3] + 1, output_shape=baseline.shape, order=1, mode="constant", cval=0.0
    )
    return Mask(values >= 0.5, baseline)
