"""Where the zone is expected on a follow-up: as planned, scaled by energy and time; beside that, around the tumor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.case import Energy, Lesion
from pipeline.geometry import FloatArray
from pipeline.transform import sample_distance

Array = NDArray[np.float32]

#: Expected diameter over the planned one, by days since the procedure.
#: Cryoablation: the zone at 24 h ends where the ice did (0.8 mm apart, pig liver: Weber, Radiology 1998;207:73); at one
#: month it has 0.78, 0.77 and 0.68 of the ice ball's three diameters (Young, Abdom Radiol 2024,
#: doi:10.1007/s00261-023-04117-3). The planned zone is a lethal isotherm inside the ice, hence the milder start. After
#: the first month no numbers were found: the factors of 180 and 365 days are assumed, for every energy.
#: Microwave: the volume grows by 57 % (median of 26) in the first 24 h, so the diameter by 16 %. How fast heated zones
#: shrink after that was not found in numbers: they are taken to shrink as far as frozen ones do, from there.
#: Radiofrequency: neither was found; half of microwave's growth.
_DAYS = (0, 1, 30, 180, 365)
_SCALES: dict[Energy, tuple[float, ...]] = {
    "cryoablation": (1.0, 1.0, 0.92, 0.8, 0.7),
    "microwave": (1.0, 1.16, 1.07, 0.93, 0.81),
    "radiofrequency": (1.0, 1.08, 1.0, 0.86, 0.76),
}


def prior_scale(days_since_procedure: int, energy: Energy) -> float:
    """Expected zone diameter over the planned one."""
    return float(np.interp(days_since_procedure, _DAYS, _SCALES[energy]))


def prior_distance_mm(lesion: Lesion, points_lps_mm: FloatArray, tumor_mm: Array, *, scale: float) -> Array:
    """(...,) signed distance to the expected zone's edge, positive inside, at (..., 3) points of the baseline's frame.

    tumor_mm: the distance to the tumor there. Without a planned zone the tumor grown by its required margin is
    expected; beside one that was predicted, too: applicators may not have been where the plan says, but they were
    meant for the tumor.
    """
    grown_ml = _ball_ml(_ball_radius_mm(lesion.tumor.volume_ml) + lesion.required_margin_mm)
    grown = _scaled(tumor_mm + np.float32(lesion.required_margin_mm), grown_ml, scale)
    if lesion.simulated_zone is None:
        return grown
    planned = _scaled(sample_distance(lesion.simulated_zone, points_lps_mm), lesion.simulated_zone.volume_ml, scale)
    return np.maximum(planned, grown) if lesion.zone_is_predicted else planned


def _scaled(distance_mm: Array, volume_ml: float, scale: float) -> Array:
    """The distance to the edge moved as that of a ball of this volume moves."""
    return np.asarray(distance_mm - np.float32((1 - scale) * _ball_radius_mm(volume_ml)), np.float32)


def _ball_radius_mm(volume_ml: float) -> float:
    return float((3 * volume_ml * 1000 / (4 * np.pi)) ** (1 / 3))


def _ball_ml(radius_mm: float) -> float:
    return float(4 / 3 * np.pi * radius_mm**3 / 1000)
