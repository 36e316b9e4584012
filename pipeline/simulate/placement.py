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
    """The active part of an applicator with a device that has one."""
    probe = applicator.probe
    assert isinstance(probe, CryoProbe | HeatProbe)
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


def check_placement(lesion: Lesion, baseline: Geometry, spacing_mm: float) -> None:
    """Raises CannotSimulate for applicators outside the baseline, far from their tumor or through one another at the
    same time, and for cells too coarse. The devices are those of the applicators, fitted."""
    lines = [active_line(applicator) for applicator in lesion.applicators]
    tumor = lesion.tumor.points_lps_mm()
    takes_s = sum(phase.duration_s for phase in lesion.protocol)
    for number, (applicator, line) in enumerate(zip(lesion.applicators, lines, strict=True)):
        if not bool(baseline.contains(np.array(applicator.tip_lps_mm))):
            raise CannotSimulate(f"applicators[{number}].tip_lps_mm", "lies outside the baseline scan")
        if (apart := float(_to_line_mm(tumor, line).min())) > FARTHEST_MM:
            swapped = active_line(
                replace(applicator, tip_lps_mm=applicator.entry_lps_mm, entry_lps_mm=applicator.tip_lps_mm)
            )
            advice = "; are tip and entry swapped?" if _to_line_mm(tumor, swapped).min() < FARTHEST_MM else ""
            text = f"puts the active part {apart:.0f} mm from the tumor; at most {FARTHEST_MM:g} mm are possible"
            raise CannotSimulate(f"applicators[{number}].tip_lps_mm", text + advice)
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


def oddities(lesion: Lesion) -> tuple[str, ...]:
    """What can be simulated but looks like a slip of a point, as sentences that begin with their key
    in the lesion. The devices are those of the applicators."""
    found = []
    tumor = lesion.tumor.points_lps_mm()
    for number, applicator in enumerate(lesion.applicators):
        if not isinstance(applicator.probe, CryoProbe | HeatProbe):
            continue
        key, line = f"applicators[{number}].entry_lps_mm", active_line(applicator)
        shaft_mm = math.dist(applicator.tip_lps_mm, applicator.entry_lps_mm)
        needed_mm = applicator.probe.tip_inset_mm + applicator.probe.active_length_mm
        entry = np.array([applicator.entry_lps_mm])
        if np.linalg.norm(tumor - entry, axis=1).min() < _to_line_mm(tumor, line).min():
            found.append(f"{key} lies nearer to the tumor than the active part: are tip and entry swapped?")
        elif shaft_mm < needed_mm:
            found.append(
                f"{key} is {shaft_mm:.0f} mm from the tip, but the active part reaches {needed_mm:.0f} mm from it: is "
                "it where the shaft passes the skin?"
            )
    return tuple(found)


def _apart_mm(one: Line, other: Line) -> float:
    """Least distance between two active parts, to a tenth of a millimetre."""
    along = np.linspace(0.0, 1.0, 200)[:, None]
    start, end = ends_of(one)
    return float(_to_line_mm(start * (1 - along) + end * along, other).min())


def _to_line_mm(points_lps_mm: FloatArray, line: Line) -> FloatArray:
    """(n,) distance from (n, 3) points to an active part."""
    start, end = ends_of(line)
    shaft = end - start
    share = np.clip((points_lps_mm - start) @ shaft / (shaft @ shaft), 0.0, 1.0)
    return np.asarray(np.linalg.norm(points_lps_mm - start - share[:, None] * shaft, axis=1))


def ends_of(line: Line) -> tuple[FloatArray, FloatArray]:
    return np.array(line.start_lps_mm), np.array(line.end_lps_mm)


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
