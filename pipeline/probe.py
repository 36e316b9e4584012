"""Applicators as devices: what a simulation needs to know of a cryoprobe, an electrode or an antenna."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Energy = Literal["cryoablation", "radiofrequency", "microwave"]


@dataclass(frozen=True)
class CryoProbe:
    """A cryoprobe. radius_mm: of the shaft; active_length_mm: the part that freezes, which begins tip_inset_mm from the
    tip; coolant_c: inside it when it freezes; transfer_w_m2k: from the shaft's surface to the coolant; ramp_s: time
    constant of its start; thaw_c: inside it when it thaws actively, None where it only can be switched off.
    provenance: where the numbers come from; is_generic: no source is known for this model itself.
    """

    model: str
    radius_mm: float
    active_length_mm: float
    tip_inset_mm: float
    coolant_c: float
    transfer_w_m2k: float
    ramp_s: float
    thaw_c: float | None
    provenance: str
    is_generic: bool = False

    def __post_init__(self) -> None:
        _check_shape(self.model, self.radius_mm, self.active_length_mm, self.tip_inset_mm)
        _check(self.model, "coolant_c", self.coolant_c, -210.0, -50.0)
        _check(self.model, "transfer_w_m2k", self.transfer_w_m2k, 50.0, 50_000.0)
        _check(self.model, "ramp_s", self.ramp_s, 0.0, 300.0)
        if self.thaw_c is not None:
            _check(self.model, "thaw_c", self.thaw_c, 0.0, 80.0)


@dataclass(frozen=True)
class HeatProbe:
    """A radiofrequency electrode or a microwave antenna. efficiency: share of the generator's power that heats tissue;
    power_w: where the protocol gives none; reach_mm: distance over which the power in tissue falls to 1 / e beside its
    spreading; coolant_c: of an internally cooled shaft, None where it is not cooled; limit_c:
    mean temperature 2 to 5 mm from the shaft at which the generator holds the tissue, None where it does not.
    """

    model: str
    radius_mm: float
    active_length_mm: float
    tip_inset_mm: float
    efficiency: float
    power_w: float
    reach_mm: float
    coolant_c: float | None
    limit_c: float | None
    provenance: str
    is_generic: bool = False

    def __post_init__(self) -> None:
        _check_shape(self.model, self.radius_mm, self.active_length_mm, self.tip_inset_mm)
        _check(self.model, "efficiency", self.efficiency, 0.01, 1.0)
        _check(self.model, "power_w", self.power_w, 1.0, 500.0)
        _check(self.model, "reach_mm", self.reach_mm, 1.0, 100.0)
        if self.coolant_c is not None:
            _check(self.model, "coolant_c", self.coolant_c, -10.0, 40.0)
        if self.limit_c is not None:
            _check(self.model, "limit_c", self.limit_c, 50.0, 120.0)


@dataclass(frozen=True)
class TabledZone:
    """A device of which only the zone it makes is known: an ellipsoid along the shaft, its center center_from_tip_mm
    from the tip. spread_fraction: standard deviation of its diameters over their mean.
    """

    model: str
    diameter_mm: float
    length_mm: float
    center_from_tip_mm: float
    spread_fraction: float
    provenance: str
    is_generic: bool = False

    def __post_init__(self) -> None:
        _check(self.model, "diameter_mm", self.diameter_mm, 2.0, 150.0)
        _check(self.model, "length_mm", self.length_mm, 2.0, 150.0)
        _check(self.model, "center_from_tip_mm", self.center_from_tip_mm, -50.0, 100.0)
        _check(self.model, "spread_fraction", self.spread_fraction, 0.0, 0.5)


Probe = CryoProbe | HeatProbe | TabledZone


def _check_shape(model: str, radius_mm: float, active_length_mm: float, tip_inset_mm: float) -> None:
    _check(model, "radius_mm", radius_mm, 0.3, 5.0)
    _check(model, "active_length_mm", active_length_mm, 1.0, 120.0)
    _check(model, "tip_inset_mm", tip_inset_mm, 0.0, 60.0)


def _check(model: str, name: str, value: float, least: float, most: float) -> None:
    """Raises ValueError, naming the key, for a number that no device has; kelvin is told by its size."""
    if least <= value <= most:
        return
    kelvin = "; temperatures are in °C, this looks like kelvin" if name.endswith("_c") and 60 < value < 400 else ""
    raise ValueError(f"{model}: {name} must be between {least:g} and {most:g}, not {value:g}{kelvin}")
