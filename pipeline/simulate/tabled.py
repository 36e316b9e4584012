"""Zones of devices of which only their size is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.case import Applicator
from pipeline.geometry import FloatArray
from pipeline.probe import TabledZone
from pipeline.simulate.placement import along, direction_of, room_around
from pipeline.surface import Level

_AROUND_MM = 4.0


def tabled_level(
    applicators: Sequence[Applicator], *, spreads: float, room_mm: float, spacing_mm: float, frame_uid: str
) -> Level:
    """The union of the devices' ellipsoids, positive inside. spreads: by how many of its standard deviations each is
    larger; room_mm: around them at the least. Raises CannotSimulate where they lie too far apart.
    """
    inside: list[Callable[[FloatArray], FloatArray]] = []
    ends: list[FloatArray] = []
    widest_mm = 0.0
    for applicator in applicators:
        probe = applicator.probe
        assert isinstance(probe, TabledZone)
        scale = 1 + probe.spread_fraction * spreads
        center, axis = along(applicator, probe.center_from_tip_mm), direction_of(applicator)
        inside.append(_ellipsoid(center, axis, scale * probe.length_mm / 2, scale * probe.diameter_mm / 2))
        widest_mm = max(widest_mm, scale * probe.diameter_mm)
        ends += [center - axis * scale * probe.length_mm / 2, center + axis * scale * probe.length_mm / 2]
    # A zone may be wider than the room that a probe needs.
    room_mm = max(room_mm, widest_mm / 2 + _AROUND_MM)
    grid = room_around(np.array(ends), room_mm=room_mm, spacing_mm=spacing_mm, frame_uid=frame_uid)
    points = grid.grid_lps()
    return Level(np.max([each(points) for each in inside], axis=0).astype(np.float32), grid)


def _ellipsoid(
    center: FloatArray, axis: FloatArray, half_length_mm: float, radius_mm: float
) -> Callable[[FloatArray], FloatArray]:
    def level(points: FloatArray) -> FloatArray:
        offset = points - center
        along = offset @ axis
        across = np.sqrt(np.maximum((offset**2).sum(-1) - along**2, 0.0))
        return np.asarray((1 - np.hypot(along / half_length_mm, across / radius_mm)) * radius_mm)

    return level
