"""Devices: numbers that no device has are refused by their key."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.probe import CryoProbe, HeatProbe, TabledZone

CRYO = CryoProbe("argon", 0.75, 24.0, 3.0, -150.0, 2000.0, 25.0, 20.0, "made")
HEAT = HeatProbe("electrode", 0.75, 20.0, 4.0, 0.8, 40.0, 60.0, 15.0, 100.5, "made")
TABLED = TabledZone("tabled", 30.0, 40.0, 10.0, 0.1, "made")


@pytest.mark.parametrize(
    ("probe", "key", "value"),
    [
        (CRYO, "radius_mm", 0.1),
        (CRYO, "active_length_mm", 200.0),
        (CRYO, "tip_inset_mm", -1.0),
        (CRYO, "coolant_c", -20.0),
        (CRYO, "transfer_w_m2k", 1.0),
        (CRYO, "ramp_s", 1000.0),
        (CRYO, "thaw_c", 100.0),
        (HEAT, "efficiency", 1.5),
        (HEAT, "power_w", 0.0),
        (HEAT, "reach_mm", 0.1),
        (HEAT, "coolant_c", 80.0),
        (HEAT, "limit_c", 40.0),
        (TABLED, "diameter_mm", 500.0),
        (TABLED, "length_mm", 0.0),
        (TABLED, "center_from_tip_mm", 300.0),
        (TABLED, "spread_fraction", 0.9),
        (TABLED, "diameter_mm", float("nan")),
    ],
)
def test_a_number_that_no_device_has_is_named(probe: object, key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{probe.model}: {key} must be between"):  # type: ignore[attr-defined]
        replace(probe, **{key: value})  # type: ignore[type-var]


def test_kelvin_is_told() -> None:
    with pytest.raises(ValueError, match="looks like kelvin"):
        replace(CRYO, coolant_c=123.0)


def test_what_a_device_lacks_may_be_missing() -> None:
    assert replace(CRYO, thaw_c=None).thaw_c is None
    assert replace(HEAT, coolant_c=None, limit_c=None).limit_c is None
