"""NIfTI affines against nibabel's own words for directions, and there and back."""

from __future__ import annotations

import nibabel as nib
import numpy as np

from dicom_node.nifti import lps_from_index, ras_affine
from pipeline.geometry import upright_grid


def test_axes_run_to_the_left_back_and_head():
    grid = upright_grid((4, 5, 6), (2.0, 1.5, 1.25), (10.0, -20.0, 30.0), "1.2.3")
    affine = ras_affine(grid.lps_from_index)
    assert nib.aff2axcodes(affine) == ("L", "P", "S")
    assert np.allclose(affine @ [5, 4, 3, 1], [*(grid.lps_of((3, 4, 5)) * (-1, -1, 1)), 1])


def test_there_and_back_is_the_same_grid():
    matrix = np.array([[0.1, 0.2, 1.2, 7.0], [0.0, 1.5, -0.1, 8.0], [2.0, 0.3, 0.0, 9.0], [0.0, 0.0, 0.0, 1.0]])
    assert np.allclose(lps_from_index(ras_affine(matrix)), matrix)
