"""Temperatures and zones as NIfTI, on the simulation's own grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dicom_node.results.masks import write_nifti
from dicom_node.simulation.lesion import SimulatedLesion
from dicom_node.simulation.names import edge_name
from pipeline.volume import Mask


def write_masks(found: SimulatedLesion, name: str, folder: Path) -> None:
    """Writes `NAME-temperature`, `-zone`, `-isotherm-20`, ..., `-certain`, `-possible.nii.gz`, what there is of them.

    An isotherm of several freeze-thaw cycles has a file after each as well (`-cycle-1`, ...); its own is the last one.
    """

    def write(what: str, mask: Mask) -> None:
        write_nifti(folder / f"{name}-{what}.nii.gz", mask.voxels.astype(np.uint8), mask.geometry)

    zone = found.zone
    if zone.temperature_c is not None:
        path = folder / f"{name}-temperature.nii.gz"
        write_nifti(path, np.asarray(zone.temperature_c, np.float32), zone.grid)
    write("zone", zone.counting.mask)
    for edge in zone.edges:
        if edge.temperature_c is None:
            continue
        write(edge_name(edge), edge.mask)
        for cycle, level in enumerate(edge.cycles, 1):
            if len(edge.cycles) > 1:
                write(f"{edge_name(edge)}-cycle-{cycle}", level.mask())
    if found.spread is not None:
        write("certain", found.spread.certain)
        write("possible", found.spread.possible)
