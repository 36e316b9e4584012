"""Applicators where the plan puts them: their active parts, and what cannot be simulated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.case import Applicator, Lesion, Point
from pipeline.geometry import FloatArray, Geometry
from pipeline.probe import CryoProbe, HeatProbe, TabledZone
from pipeline.simulate.device_fit import fitted
from pipeline.simulate.sinks import Line
from pipeline.simulate.tissue_map import grid_around
from pipeline.volume import Mask

#: About 3 GiB.
MOST_CELLS = 20e6
#: A probe much thinner than a cell is felt as a line; beyond this its first millimetres are guessed (our own choice).
MOST_CELLS_IN_RADII = 3.5
#: Farther than any zone reaches, so that an applicator so far from its tumor is a slip of a point (our own choice).
FARTHEST_MM = 60.0


class CannotSimulate(ValueError):
    """Why a lesion's zone cannot be simulated; `key` is the part of the lesion to look at."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key, self.text = key, text


def active_line(applicator: Applicator) -> Line:
    """The active part of an applicator; of a device with a tabled zone, the axis of its ellipsoid."""
    probe = applicator.probe
    assert probe is not None
    if isinstance(probe, TabledZone):
        half_mm, center_mm = probe.length_mm / 2, probe.center_from_tip_mm
        ends = (along(applicator, center_mm - half_mm), along(applicator, center_mm + half_mm))
        return Line(_point(ends[0]), _point(ends[1]), probe.diameter_mm / 2)
    start = along(applicator, probe.tip_inset_mm)
    end = along(applicator, probe.tip_inset_mm + probe.active_length_mm)
    reach_mm = probe.reach_mm if isinstance(probe, HeatProbe) else 0.0
    return Line(_point(start), _point(end), probe.radius_mm, reach_mm)


def check_lesion(lesion: Lesion) -> None:
    """Raises CannotSimulate for applicators and a protocol that make no zone."""
    if not lesion.applicators:
        raise CannotSimulate("applicators", "names no applicator; the zone cannot be simulated")
    if any(applicator.probe is None for applicator in lesion.applicators):
        raise CannotSimulate("applicators", "names a device of which nothing is known")
    tabled = [isinstance(a.probe, TabledZone) for a in lesion.applicators]
    if any(tabled) and not all(tabled):
        raise CannotSimulate("applicators", "mixes devices with a tabled zone and devices that are simulated")
    if len({type(applicator.probe) for applicator in lesion.applicators}) > 1:
        raise CannotSimulate("applicators", "mixes devices that freeze and devices that heat")
    for number, applicator in enumerate(lesion.applicators):
        if applicator.isotherm_size is not None and not isinstance(applicator.probe, CryoProbe):
            text = "is given, but this device has a zone of its own that is not simulated; leave it out"
            raise CannotSimulate(f"applicators[{number}].isotherm_size", text)
    if not any(tabled) and not lesion.protocol:
        raise CannotSimulate("protocol", "is missing; the zone cannot be simulated without it")
    wanted = "freeze" if any(isinstance(a.probe, CryoProbe) for a in lesion.applicators) else "heat"
    if not any(tabled) and not any(phase.phase == wanted for phase in lesion.protocol):
        raise CannotSimulate("protocol", f"has no phase {wanted}")


def fitted_devices(applicators: Sequence[Applicator]) -> tuple[Applicator, ...]:
    """The applicators, those with a stated isotherm with the device fitted to it. Raises CannotSimulate."""
    found = []
    for number, applicator in enumerate(applicators):
        probe, size = applicator.probe, applicator.isotherm_size
        if size is not None and isinstance(probe, CryoProbe):
            try:
                probe = fitted(probe, size)
            except ValueError as problem:
                raise CannotSimulate(f"applicators[{number}].isotherm_size", str(problem)) from None
        found.append(replace(applicator, probe=probe))
    return tuple(found)


def fine_enough_mm(applicators: Sequence[Applicator], wanted_mm: float) -> float:
    """The width of the cells that is wanted, or what the thinnest shaft allows."""
    radii = [a.probe.radius_mm for a in applicators if isinstance(a.probe, CryoProbe | HeatProbe)]
    return min([wanted_mm, *(MOST_CELLS_IN_RADII * radius_mm for radius_mm in radii)])


def room_around(points_lps_mm: FloatArray, *, room_mm: float, spacing_mm: float, frame_uid: str) -> Geometry:
    """The grid to simulate on (see `grid_around`). Raises CannotSimulate where it would have too many cells."""
    grid = grid_around(points_lps_mm, room_mm=room_mm, spacing_mm=spacing_mm, frame_uid=frame_uid)
    if (cells := math.prod(grid.shape)) > MOST_CELLS:
        text = (
            f"lie so far apart that they ask for {cells / 1e6:.0f} million cells of {spacing_mm:g} mm; at most "
            f"{MOST_CELLS / 1e6:.0f} million are possible"
        )
        raise CannotSimulate("applicators", text)
    return grid


def check_placement(lesion: Lesion, baseline: Geometry, spacing_mm: float) -> None:
    """Raises CannotSimulate for applicators outside the baseline, far from their tumor or with shafts through one
    another at the same time, and for cells too coarse. The devices are those of the applicators, fitted."""
    lines = [active_line(applicator) for applicator in lesion.applicators]
    tumor = lesion.tumor.points_lps_mm()
    takes_s = sum(phase.duration_s for phase in lesion.protocol)
    for number, (applicator, line) in enumerate(zip(lesion.applicators, lines, strict=True)):
        if not bool(baseline.contains(np.array(applicator.tip_lps_mm))):
            raise CannotSimulate(f"applicators[{number}].tip_lps_mm", "lies outside the baseline scan")
        if (apart := float(line.distance_mm(tumor).min())) > FARTHEST_MM:
            swapped = active_line(
                replace(applicator, tip_lps_mm=applicator.entry_lps_mm, entry_lps_mm=applicator.tip_lps_mm)
            )
            advice = "; are tip and entry swapped?" if swapped.distance_mm(tumor).min() < FARTHEST_MM else ""
            text = (
                f"puts the {_part(applicator)} {apart:.0f} mm from the tumor; at most {FARTHEST_MM:g} mm are possible"
            )
            raise CannotSimulate(f"applicators[{number}].tip_lps_mm", text + advice)
        if isinstance(applicator.probe, TabledZone):
            continue
        if spacing_mm > (widest_mm := MOST_CELLS_IN_RADII * line.radius_mm):
            assert applicator.probe is not None  # it has an active part
            text = (
                f"is simulated as the {applicator.probe.model} with a radius of {line.radius_mm:g} mm, for which cells "
                f"of {spacing_mm:g} mm are too coarse; at most {math.floor(10 * widest_mm) / 10:g} mm are possible"
            )
            raise CannotSimulate(f"applicators[{number}].model", text)
        for before in range(number):
            touch = line.radius_mm + lines[before].radius_mm
            together = abs(applicator.start_s - lesion.applicators[before].start_s) < takes_s
            if together and _apart_mm(line, lines[before]) < touch:
                text = f"overlaps applicators[{before}]: their shafts are less than {touch:.1f} mm apart"
                raise CannotSimulate(f"applicators[{number}].tip_lps_mm", text)


def oddities(tumor: Mask, applicators: Sequence[Applicator]) -> tuple[str, ...]:
    """What can be simulated but looks like a slip of a point, as sentences that begin with their key
    in the lesion. applicators: with the devices as fitted."""
    found = []
    points = tumor.points_lps_mm()
    for number, applicator in enumerate(applicators):
        key, line, probe = f"applicators[{number}].entry_lps_mm", active_line(applicator), applicator.probe
        shaft_mm = math.dist(applicator.tip_lps_mm, applicator.entry_lps_mm)
        needed_mm = 0.0 if isinstance(probe, TabledZone | None) else probe.tip_inset_mm + probe.active_length_mm
        entry = np.array([applicator.entry_lps_mm])
        if np.linalg.norm(points - entry, axis=1).min() < line.distance_mm(points).min():
            found.append(f"{key} lies nearer to the tumor than the {_part(applicator)}: are tip and entry swapped?")
        elif shaft_mm < needed_mm:
            found.append(
                f"{key} is {shaft_mm:.0f} mm from the tip, but the active part reaches {needed_mm:.0f} mm from it: is "
                "it where the shaft passes the skin?"
            )
    return tuple(found)


def _apart_mm(one: Line, other: Line) -> float:
    """Least distance between two active parts, to a tenth of a millimetre."""
    along = np.linspace(0.0, 1.0, 200)[:, None]
    start, end = one.ends
    return float(other.distance_mm(start * (1 - along) + end * along).min())


def _part(applicator: Applicator) -> str:
    return "zone" if isinstance(applicator.probe, TabledZone) else "active part"


def direction_of(applicator: Applicator) -> FloatArray:
    shaft = np.subtract(applicator.entry_lps_mm, applicator.tip_lps_mm)
    return np.asarray(shaft / np.linalg.norm(shaft))


def mean_direction(applicators: Sequence[Applicator]) -> FloatArray:
    """(3,) unit vector; of the first applicator where they point against one another."""
    total = np.sum([direction_of(a) for a in applicators], axis=0)
    size = float(np.linalg.norm(total))
    return np.asarray(total / size) if size > 0.1 else direction_of(applicators[0])


def along(applicator: Applicator, from_tip_mm: float) -> FloatArray:
    return np.asarray(np.array(applicator.tip_lps_mm) + from_tip_mm * direction_of(applicator))


def _point(values: FloatArray) -> Point:
    x, y, z = (float(v) for v in values)
    return x, y, z
