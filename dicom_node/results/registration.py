"""The map from the follow-up to the baseline as an ITK transform file."""

from __future__ import annotations

import errno
from pathlib import Path

import SimpleITK as sitk

from pipeline.transform import Transform, itk_transform


def write_transform(baseline_from_followup: Transform, path: Path) -> None:
    """Writes the file that ``SimpleITK.ReadTransform`` reads. Raises OSError when it cannot be written."""
    try:
        sitk.WriteTransform(itk_transform(baseline_from_followup), str(path))
    except RuntimeError as problem:  # SimpleITK has no other error, and a full disk is one of its causes
        raise OSError(errno.EIO, "the transform file could not be written", str(path)) from problem
