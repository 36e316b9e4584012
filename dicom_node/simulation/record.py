"""The simulation as one document: what `simulation.json` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dicom_node.notice import NOT_FOR_DIAGNOSIS
from dicom_node.results.record import finite, reasons_record, settings_sha256, software_version
from dicom_node.simulation.lesion import SimulatedLesion
from dicom_node.study import PlannedStudy
from pipeline.assessment import Reason
from pipeline.case import Applicator, ProtocolPhase
from pipeline.probe import CryoProbe, TabledZone
from pipeline.simulate.planned import PlannedMargin, Spread
from pipeline.simulate.schedule import PRESETS
from pipeline.simulate.zone import SimulationSettings

SCHEMA = "marginwatch/simulation/1"


def record_of(
    study: PlannedStudy,
    lesions: Sequence[SimulatedLesion],
    reasons: Sequence[Reason],
    simulation: SimulationSettings,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The `simulation.json` document without its timing; every number in it is finite or null.

    settings: everything set that the result depends on.
    """
    return finite(
        {
            "schema": SCHEMA,
            "notice": f"{NOT_FOR_DIAGNOSIS} Not for planning a treatment.",
            "plan_id": study.plan.plan_id,
            "patient_id": study.patient_id,
            "energy": study.plan.energy,
            "organ": study.plan.organ,
            "settings": {
                "isotherm_c": simulation.isotherm_c,
                "spacing_mm": simulation.spacing_mm,
                "by_tissue": simulation.by_tissue,
                "dose": simulation.dose.law,
            },
            "lesions": [_lesion(lesion) for lesion in lesions],
            "reasons": reasons_record(reasons),
            "provenance": {
                "software_version": software_version(),
                "settings_sha256": settings_sha256(settings),
            },
        }
    )


def _lesion(found: SimulatedLesion) -> dict[str, Any]:
    lesion, overlap, thinnest = found.lesion, found.overlap, found.margins[0].thinnest_lps_mm
    return {
        "lesion_id": lesion.lesion_id,
        "applicators": [_applicator(applicator) for applicator in found.zone.applicators],
        "protocol": _protocol(lesion.protocol),
        "required_margin_mm": lesion.required_margin_mm,
        "edges": [_edge(margin, counts=number == 0) for number, margin in enumerate(found.margins)],
        "minimal_margin_point_lps_mm": None if thinnest is None else list(thinnest),
        "spread": None if found.spread is None else _spread(found.spread),
        "simulated_zone_of_plan": None if overlap is None else asdict(overlap),
        "reasons": reasons_record(found.reasons),
    }


def _applicator(applicator: Applicator) -> dict[str, Any]:
    probe = applicator.probe
    assert probe is not None  # what has no device is not simulated
    return {
        "model": applicator.model,
        "probe": probe.model,
        "known": applicator.model_is_known,
        "generic": probe.is_generic,
        "provenance": probe.provenance,
        "active_length_mm": None if isinstance(probe, TabledZone) else probe.active_length_mm,
        "transfer_w_m2k": probe.transfer_w_m2k if isinstance(probe, CryoProbe) else None,
        "fitted_to": None if applicator.isotherm_size is None else asdict(applicator.isotherm_size),
        "power_fraction": applicator.power_fraction,
        "start_s": applicator.start_s,
    }


def _protocol(phases: Sequence[ProtocolPhase]) -> dict[str, Any]:
    preset = next((preset for preset in PRESETS.values() if preset.phases == tuple(phases)), None)
    return {
        "preset": None if preset is None else preset.name,
        "source": None if preset is None else preset.source or None,
        "phases": [
            {"phase": p.phase, "duration_s": p.duration_s, "power_w": p.power_w, "active": p.is_active} for p in phases
        ],
    }


def _edge(margin: PlannedMargin, *, counts: bool) -> dict[str, Any]:
    return {
        "name": margin.edge,
        "temperature_c": margin.temperature_c,
        "counts": counts,
        "volume_ml_after_cycle": list(margin.size.volume_ml),
        "length_mm": margin.size.length_mm,
        "diameter_mm": margin.size.diameter_mm,
        "minimal_margin_mm": margin.minimal_margin_mm,
        "covered_fraction": margin.covered_fraction,
    }


def _spread(spread: Spread) -> dict[str, Any]:
    margin = spread.minimal_margin_mm
    return {
        "runs": spread.runs,
        "volume_ml": list(spread.volume_ml),
        "minimal_margin_mm": None if margin is None else list(margin),
    }
