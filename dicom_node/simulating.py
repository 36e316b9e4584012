"""A plan from files to a folder with its simulated zones: decode, simulate, write."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicom_node.assessing import probes_of, settings_in_use, simulation_of
from dicom_node.results.place import check_place
from dicom_node.settings import SimulatedZone

if TYPE_CHECKING:
    from pipeline.simulate.zone import SimulationSettings


@dataclass(frozen=True)
class Wishes:
    """What is asked for besides a site's settings. isotherm_c: None for the site's; by_tissue: whether tissues are told
    apart; with_spread: whether an ensemble tells how far the zone may be off."""

    isotherm_c: float | None = None
    spacing_mm: float = 1.0
    by_tissue: bool = True
    with_spread: bool = True


def simulation_settings(site: SimulatedZone, wishes: Wishes) -> SimulationSettings:
    """What the simulation runs with. Raises ValueError, naming the allowed range."""
    from dataclasses import replace

    own = simulation_of(site)
    isotherm_c = own.isotherm_c if wishes.isotherm_c is None else wishes.isotherm_c
    return replace(own, isotherm_c=isotherm_c, spacing_mm=wishes.spacing_mm, by_tissue=wishes.by_tissue)


def simulate_files(
    plan: Path,
    *,
    baseline: Sequence[Path] | None,
    out: Path,
    site: SimulatedZone | None = None,
    wishes: Wishes | None = None,
    progress: Callable[[str], None] = lambda _stage: None,
) -> dict[str, Any]:
    """The `simulation.json` document of a plan, after its whole folder has appeared at `out`.

    plan: the `plan.json`; baseline: DICOM files of the scan that it was made on, None to do without. Raises `Refused`
    for input that cannot be used, and at once where no result can appear at `out`; ValueError for wishes out of range.
    """
    started = time.monotonic()
    site, wishes = site or SimulatedZone(), wishes or Wishes()
    check_place(out, replaces="simulation.json")
    progress("load")
    from dicom_node.decode.planned import read_planned
    from dicom_node.simulation.folder import Simulated, write_simulation
    from dicom_node.simulation.lesion import simulated_lesions

    simulation = simulation_settings(site, wishes)
    ready = time.monotonic()
    progress("decode")
    study = read_planned(plan, baseline=baseline, probes=probes_of(site))
    decoded = time.monotonic()
    lesions, left_out = simulated_lesions(study.plan, simulation, with_spread=wishes.with_spread, progress=progress)
    before = {"load": ready - started, "decode": decoded - ready, "simulate": time.monotonic() - decoded}
    progress("write")
    settings = settings_in_use(site) | {"simulation_settings": asdict(simulation)}
    simulated = Simulated(study, lesions, (*study.notes, *left_out), simulation, settings)
    return write_simulation(simulated, out, earlier_timing_s=before, started=started)
