"""Regions as NIfTI on the follow-up's own grid: `zone`, `tumor` and `uncovered`, labelled by lesion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.openers import Opener
from numpy.typing import NDArray

from dicom_node.nifti import ras_affine
from pipeline.assessment import LesionAssessment
from pipeline.geometry import Geometry, GeometryMismatch
from pipeline.volume import Mask


def write_masks(lesions: Sequence[LesionAssessment], followup: Geometry, folder: Path) -> None:
    """Writes `zone.nii.gz`, `tumor.nii.gz` and `uncovered.nii.gz`: uint8 ``[i, j, k]``, value n for the n-th lesion.

    A region that was not found stays 0, so that a file is never missing. Where two lesions overlap the earlier one
    keeps its number; ``> 0`` is the union.
    """
    for name in ("zone", "tumor", "uncovered"):
        _write(folder / f"{name}.nii.gz", [getattr(lesion, name) for lesion in lesions], followup)


def _write(path: Path, masks: Sequence[Mask | None], followup: Geometry) -> None:
    labels = np.zeros(followup.shape, np.uint8)
    for number, mask in reversed(list(enumerate(masks, 1))):
        if mask is None:
            continue
        if not mask.geometry.same_grid(followup):
            raise GeometryMismatch(f"a region for {path.name} is not on the follow-up's grid")
        labels[mask.voxels] = min(number, 255)
    write_nifti(path, labels, followup)


def write_nifti(path: Path, values: NDArray[Any], geometry: Geometry) -> None:
    """Writes ``[k, j, i]`` values as a NIfTI file, compressed where its name says so."""
    image = nib.Nifti1Image(values.transpose(2, 1, 0), ras_affine(geometry.lps_from_index))
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    with Opener(str(path), "wb", compresslevel=1) as stream:
        image.to_stream(stream.fobj)
