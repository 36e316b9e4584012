"""When heat has coagulated tissue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: Liver: frequency 7.39e39 1/s, energy 2.577e5 J/mol (Jacques, whitening of liver; as in the material tables that
#: carry it).
_FREQUENCY_1_S, _ENERGY_J_MOL, _GAS_J_MOL_K = 7.39e39, 2.577e5, 8.314462618
#: An integral of 4.6 kills 99 % of cells. At 1 (63 %) the edge lies near 42 °C after ten minutes, which no zone shows.
_FULL_INTEGRAL = 4.6
#: Equivalent minutes at 43 °C (Sapareto & Dewey, Int J Radiat Oncol Biol Phys 1984;10:787).
_FULL_MINUTES = 240.0


@dataclass(frozen=True)
class Dose:
    """By which law heat harms: Arrhenius' integral over time, or cumulative equivalent minutes at 43 °C."""

    law: Literal["arrhenius", "cem43"] = "arrhenius"

    @property
    def rate(self) -> NDArray[np.float64]:
        """(3,) for the kernels, see `arrays.Harm`."""
        if self.law == "arrhenius":
            return np.array([np.log(_FREQUENCY_1_S), _ENERGY_J_MOL / _GAS_J_MOL_K, _FULL_INTEGRAL])
        return np.array([0.0, 0.0, _FULL_MINUTES])
