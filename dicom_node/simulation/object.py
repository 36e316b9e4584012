"""The simulated zones as one DICOM Segmentation on the simulation's grid, in the baseline's frame of reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom import Dataset

from dicom_node import codes
from dicom_node.results.identifiers import Identifiers
from dicom_node.results.legend import Look
from dicom_node.results.segmentation import Made, Segment, segmentation
from dicom_node.results.sources import is_matched, source_heads
from dicom_node.simulation.lesion import SimulatedLesion
from dicom_node.simulation.looks import look_of
from dicom_node.study import SourceImages
from pipeline.case import Organ

_SIMULATION = Made(
    kind="simulation",
    content_label="SIMULATED_ZONE",
    algorithm="Marginwatch simulation",
    family=codes.SIMULATION,
    contribution="Simulation of the ablation zone",
)


def simulated_segments(lesions: Sequence[SimulatedLesion]) -> tuple[Segment, ...]:
    """A segment for each lesion and edge of its zone, each lesion's one that counts first, all on one grid; an edge
    that is reached nowhere is left out.

    The grid is the first lesion's, extended where others lie beyond it.
    """
    first, *others = [lesion.zone.grid for lesion in lesions]
    grid = first.holding(others)
    found: list[Segment] = []
    for lesion in lesions:
        for number, edge in enumerate(lesion.zone.edges):
            mask = edge.level.mask_on(grid)
            if not mask.is_empty:
                look = look_of(edge, number)
                label = f"simulated zone {edge.name}" if number == 0 else f"simulated {edge.name}"
                found.append(Segment(len(found) + 1, lesion.lesion.lesion_id, "zone", mask, Look(label, look.color)))
    return tuple(found)


def zone_object(segments: Sequence[Segment], sources: SourceImages, organ: Organ, identifiers: Identifiers) -> Dataset:
    """The Segmentation object. sources: the baseline's images, of which those that the zones reach are referred to."""
    made: Dataset = segmentation(
        segments, source_heads(sources, _reached(segments, sources)), organ, identifiers, _SIMULATION
    )
    return made


def _reached(segments: Sequence[Segment], sources: SourceImages) -> tuple[int, int] | None:
    """The first of the baseline's slices that a zone reaches, and the one after the last."""
    if not is_matched(sources):
        return None
    points = np.concatenate([segment.mask.points_lps_mm() for segment in segments])
    along = sources.geometry.index_of(points)[:, 0]
    last = sources.geometry.shape[0] - 1
    first = int(np.clip(np.floor(along.min()), 0, last))
    return first, int(np.clip(np.ceil(along.max()), first, last)) + 1
