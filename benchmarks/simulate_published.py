"""Published sizes of ice and of heat zones, and what ours gives for them. One number is fitted where it is said so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq
from skimage.measure import find_contours

from pipeline.geometry import upright_grid
from pipeline.simulate.heat import Drive, Interval, run
from pipeline.simulate.lattice import Lattice
from pipeline.simulate.sinks import Line
from pipeline.simulate.tissue import Tissue, varied
from pipeline.simulate.tissues import GEL, KIDNEY, LIVER, at_rest, heated

RAMP_S = 25.0
Places = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Cold:
    """Parallel cryoprobes that freeze once. places: across their direction, mm."""

    tissue: Tissue
    places: Places
    coolant_c: float
    active_mm: float
    freeze_s: float
    half_width_mm: float
    radius_mm: float = 1.2


def ice_mm(case: Cold, transfer_w_m2k: float, isotherms_c: tuple[float, ...], spacing_mm: float) -> list[float]:
    """Diameters of the isotherms: of the circle with the area of the largest section across the probes."""
    h = spacing_mm
    across, along = round(2 * case.half_width_mm / h), round((case.active_mm + 40) / h)
    origin = (-(across - 1) * h / 2, -(across - 1) * h / 2, -(along - 1) * h / 2)
    grid = upright_grid((along, across, across), (h,) * 3, origin, "made")
    half = case.active_mm / 2
    lines = [Line((x, y, -half), (x, y, half), case.radius_mm) for x, y in case.places]
    lattice = Lattice(grid, np.zeros(grid.shape, np.uint8), (case.tissue,))
    drive = Drive(case.coolant_c, transfer_w_m2k, RAMP_S)
    course = run(lattice, lines, [Interval(case.freeze_s, (drive,) * len(lines), freezes=True)])
    theta = lattice.by_tissue(course.least_enthalpy[-1], "potential_from").astype(float)
    middle = along // 2
    out = []
    for celsius in isotherms_c:
        level = float(case.tissue.law.potential_of(celsius))
        areas = [_area(theta[k], level) for k in range(middle - 3, middle + 3)]
        out.append(2 * h * float(np.sqrt(max(areas) / np.pi)))
    return out


def _area(plane: np.ndarray, level: float) -> float:
    """In cells, inside all contours."""
    total = 0.0
    for contour in find_contours(plane, level):
        y, x = contour.T
        total += abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
    return total


def fitted_transfer(case: Cold, diameter_mm: float, isotherm_c: float, spacing_mm: float) -> float | None:
    """W/m²/K with which the isotherm gets that diameter; None where none from 100 to 20 000 gives it."""

    def miss(log_transfer: float) -> float:
        return ice_mm(case, float(np.exp(log_transfer)), (isotherm_c,), spacing_mm)[0] - diameter_mm

    low, high = np.log(100.0), np.log(20_000.0)
    if miss(low) > 0 or miss(high) < 0:
        return None
    return float(np.exp(brentq(miss, low, high, xtol=0.01)))


#: Littrup et al., J Vasc Interv Radiol 2009;20:1343 (PMC2762356): 0 °C from the share of the ice that -30 °C fills.
LITTRUP_0C_MM = {1: 33.3, 2: 48.7, 3: 57.4, 4: 65.5}
LITTRUP_30C_MM = {1: 12.0, 2: 33.0, 3: 41.0, 4: 49.0}
_SQUARES: dict[int, Places] = {
    1: ((0.0, 0.0),),
    2: ((-10.0, 0.0), (10.0, 0.0)),
    3: ((0.0, 11.55), (-10.0, -5.77), (10.0, -5.77)),
    4: ((-10.0, -10.0), (10.0, -10.0), (-10.0, 10.0), (10.0, 10.0)),
}


def littrup(spacing_mm: float, active_mm: float) -> list[dict[str, Any]]:
    """1 to 4 probes of 2.4 mm, 2 cm apart, 15 min, agar at 39 °C. The transfer of heat is fitted on the 0 °C diameter
    of one probe alone; the active length is not published."""
    cases = {n: Cold(at_rest(GEL, 39.0), places, -150.0, active_mm, 900.0, 55.0) for n, places in _SQUARES.items()}
    transfer = fitted_transfer(cases[1], LITTRUP_0C_MM[1], 0.0, spacing_mm)
    rows = []
    for n, case in cases.items():
        zero, cold = ice_mm(case, transfer, (0.0, -30.0), spacing_mm) if transfer else (np.nan, np.nan)
        rows.append(
            {
                "case": f"Littrup 2009, {n} probe{'s' if n > 1 else ' (fitted)'}, active {active_mm:g} mm",
                "spacing_mm": spacing_mm,
                "transfer_w_m2k": transfer,
                "isotherm": "0 / -30 °C",
                "published": f"{LITTRUP_0C_MM[n]:g} / {LITTRUP_30C_MM[n]:g} mm",
                "ours": f"{zero:.1f} / {cold:.1f} mm",
                "error_percent": 100 * (zero / LITTRUP_0C_MM[n] - 1),
                "error_30c_percent": 100 * (cold / LITTRUP_30C_MM[n] - 1),
            }
        )
    return rows


#: Visica 2, liquid nitrogen, pigs in vivo, zones of necrosis after three days (PMC7798152): width, mean and standard
#: deviation, mm. How the time was split into freezing and thawing is not published: all of it is taken as one freeze.
VISICA: tuple[tuple[str, Tissue, float, float, float], ...] = (
    ("liver, 4 min (fitted)", LIVER, 240.0, 17.0, 3.0),
    ("kidney, 4 min", KIDNEY, 240.0, 20.0, 4.0),
    ("kidney, 12 min", KIDNEY, 720.0, 31.0, 8.0),
)


def liquid_nitrogen(spacing_mm: float, active_mm: float, *, perfused: bool = True) -> list[dict[str, Any]]:
    """One probe of 2.4 mm at -190 °C; the transfer of heat is fitted on the liver's width alone, read at -20 °C."""
    cases = [
        Cold(varied(tissue, perfusion=float(perfused)), ((0.0, 0.0),), -190.0, active_mm, seconds, 40.0)
        for _, tissue, seconds, _, _ in VISICA
    ]
    transfer = fitted_transfer(cases[0], VISICA[0][3], -20.0, spacing_mm)
    rows = []
    for case, (name, _, _, mean_mm, deviation_mm) in zip(cases, VISICA, strict=True):
        zero, lethal = ice_mm(case, transfer, (0.0, -20.0), spacing_mm) if transfer else (np.nan, np.nan)
        rows.append(
            {
                "case": f"liquid nitrogen, pig {name}, active {active_mm:g} mm{'' if perfused else ', no perfusion'}",
                "spacing_mm": spacing_mm,
                "transfer_w_m2k": transfer,
                "isotherm": "0 / -20 °C",
                "published": f"{mean_mm:g} ± {deviation_mm:g} mm",
                "ours": f"{zero:.1f} / {lethal:.1f} mm",
                "error_percent": 100 * (lethal / mean_mm - 1),
                "deviations": abs(lethal - mean_mm) / deviation_mm,
            }
        )
    return rows


@dataclass(frozen=True)
class Hot:
    """A shaft that gives power to liver, cooled at 15 °C inside. power_w: that heats tissue."""

    power_w: float
    seconds: float
    active_mm: float
    radius_mm: float
    reach_mm: float
    rest_c: float
    perfused: bool
    limit_c: float | None


def coagulated(case: Hot, spacing_mm: float = 1.5) -> tuple[float, float]:
    """Volume in ml and diameter across in mm of what heat has coagulated, by Arrhenius' integral."""
    n = round(90 / spacing_mm)
    grid = upright_grid((n, n, n), (spacing_mm,) * 3, (-(n - 1) * spacing_mm / 2,) * 3, "made")
    tissue = replace(LIVER, rest_c=case.rest_c, perfusion_w_m3k=LIVER.perfusion_w_m3k if case.perfused else 0.0)
    lattice = Lattice(grid, np.zeros(grid.shape, np.uint8), (heated(tissue),))
    half = case.active_mm / 2
    line = Line((0.0, 0.0, -half), (0.0, 0.0, half), case.radius_mm, case.reach_mm)
    works = Interval(case.seconds, (Drive(15.0, 3000.0, 5.0),), (case.power_w,), case.limit_c)
    dose = run(lattice, [line], [works, Interval(120.0, (None,))]).dose
    assert dose is not None
    done = dose >= 1
    area = float(done.sum(axis=(1, 2)).max()) * spacing_mm**2
    return float(done.sum()) * spacing_mm**3 / 1000, 2 * float(np.sqrt(area / np.pi))


def heat() -> list[dict[str, Any]]:
    """Radiofrequency (17 G, cooled, 3 cm, 12 min; PMC4628443) and microwave (120 W, 15 min, ex vivo;
    doi:10.1186/s41747-019-0115-4). How much of a generator's power heats tissue nearby is not published: two shares."""
    rows = []
    for share in (0.6, 1.0):
        in_vivo = Hot(49.0 * share, 720.0, 30.0, 0.735, 100.0, 37.0, True, 83.0)
        ex_vivo = replace(in_vivo, rest_c=22.0, perfused=False)
        microwave = Hot(120.0 * share, 900.0, 25.0, 0.9, 10.4, 20.0, False, None)
        for name, case, published in (
            ("radiofrequency, pig in vivo", in_vivo, "7.8 ± 1.7 ml"),
            ("radiofrequency, ex vivo", ex_vivo, "23.9 ± 3.8 ml"),
            ("microwave, ex vivo", microwave, "56.8 ± 3.1 ml, 42.0 ± 1.4 mm across"),
        ):
            ml, across_mm = coagulated(case)
            rows.append(
                {
                    "case": f"{name}, {100 * share:.0f} % of the power heats tissue",
                    "spacing_mm": 1.5,
                    "published": published,
                    "ours": f"{ml:.1f} ml, {across_mm:.1f} mm across",
                }
            )
    return rows
