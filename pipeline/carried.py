"""A lesion's tumor carried to the follow-up, and how far off it may lie there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pipeline.case import Lesion
from pipeline.geometry import FloatArray
from pipeline.registration_error import RegistrationErrors
from pipeline.surface import Level, Surface, level_of_mask
from pipeline.transform import Transform

#: At how many places of its surface, or up to twice as many, the expected error is told.
PLACES = 500


@dataclass(frozen=True, eq=False)
class CarriedTumor:
    """level, planned: the tumor and its surface in the baseline's frame; here: the surface on the follow-up, vertex by
    vertex; errors: of the registration that carried it."""

    baseline_from_followup: Transform
    level: Level
    planned: Surface
    here: Surface
    errors: RegistrationErrors

    @property
    def places_lps_mm(self) -> FloatArray:
        """(n, 3) points all over the surface, on the follow-up."""
        vertices = self.here.vertices_lps_mm
        return vertices[:: max(1, len(vertices) // PLACES)]

    @cached_property
    def expected_error_mm(self) -> FloatArray:
        """(n,) at `places_lps_mm`."""
        return self.errors.expected_mm(self.places_lps_mm)


def carry(lesion: Lesion, baseline_from_followup: Transform, errors: RegistrationErrors) -> CarriedTumor:
    """The tumor on the follow-up."""
    level = level_of_mask(lesion.tumor)
    planned = level.surface()
    here = Surface(baseline_from_followup.inverse_points(planned.vertices_lps_mm), planned.faces)
    return CarriedTumor(baseline_from_followup, level, planned, here, errors)
