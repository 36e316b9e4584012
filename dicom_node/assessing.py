"""One follow-up from files to a result folder: decode, assess, write. Shared by `assess`, the worker and batch."""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import pipeline
from dicom_node.results.place import check_place
from dicom_node.settings import SimulatedZone

if TYPE_CHECKING:
    from dicom_node.probe_table import ProbeTable
    from pipeline.simulate.zone import SimulationSettings


def assess_files(  # noqa: PLR0913 (what the command line's `assess` takes)
    plan: Path,
    *,
    baseline: Sequence[Path],
    followup: Sequence[Path],
    previous: Sequence[Path],
    out: Path,
    simulation: SimulatedZone | None = None,
    supersedes: Sequence[Path] = (),
    progress: Callable[[str], None] = lambda _stage: None,
) -> dict[str, Any]:
    """The `assessment.json` document of one follow-up, after its whole result folder has appeared at `out`.

    plan: the `plan.json`; baseline, followup: DICOM files (anything else among them is noted and skipped); previous:
    result folders of earlier follow-ups of the plan; simulation: how a zone is simulated where the plan brings none;
    supersedes: the result folders of earlier assessments of this follow-up, the last one first, which this withdraws.
    Raises `Refused` for input that cannot be used, and at once where
    no result can appear at `out`; then `out` is left as it was. A follow-up that cannot be assessed is a result like
    any other.
    """
    started = time.monotonic()
    check_place(out)
    progress("load")
    # Loaded here and not above, so that the times of a cold start count it.
    import torch

    from dicom_node.decode.case import read_case
    from dicom_node.results.folder import write_results
    from pipeline.assess import assess

    # The registration runs its two ways side by side; more threads inside each only wait for one another.
    torch.set_num_threads(1)
    ready = time.monotonic()
    progress("decode")
    site = simulation or SimulatedZone()
    study = read_case(plan, baseline=baseline, followup=followup, previous=previous, probes=probes_of(site))
    before = {"load": ready - started, "decode": time.monotonic() - ready}
    assessment = assess(study.case, simulation=simulation_of(site), clock=time.monotonic, progress=progress)
    progress("write")
    settings = settings_in_use(site)
    return write_results(
        assessment,
        study,
        out,
        earlier_timing_s=before,
        started=started,
        settings=settings,
        supersedes=supersedes,
    )


def simulation_of(site: SimulatedZone) -> SimulationSettings:
    """What a site sets, as the simulation of an expected zone takes it."""
    from pipeline.simulate.dose import Dose
    from pipeline.simulated_plan import AS_EXPECTATION

    law: Literal["arrhenius", "cem43"] = "cem43" if site.dose == "cem43" else "arrhenius"
    return replace(AS_EXPECTATION, isotherm_c=site.isotherm_c, dose=Dose(law))


def probes_of(site: SimulatedZone) -> ProbeTable:
    """The probe table, with the site's own entries. Raises `Refused` ``bad_probe_table``."""
    from dicom_node.probe_table import probe_table

    return probe_table(Path(site.probes) if site.probes else None)


def settings_in_use(site: SimulatedZone | None = None) -> dict[str, Any]:
    """Every setting of the method that has a name; `settings_sha256` in the result is the hash of these. What is
    written into the code without one is told by the software's version.

    Of a node's configuration only `simulation` is among them, with the devices known; the rest says where things lie,
    who may connect and how long to wait. So node, batch and command line give the same hash for the same method.
    """
    from pipeline.progression import ProgressionSettings
    from pipeline.segment import SegmentSettings
    from pipeline.simulate.tissues import TISSUES

    site = site or SimulatedZone()
    modules = [m.name for m in pkgutil.walk_packages(pipeline.__path__, "pipeline.") if ".phantom" not in m.name]
    constants = {name.removeprefix("pipeline."): _constants(importlib.import_module(name)) for name in modules}
    return {
        **{name: found for name, found in constants.items() if found},
        "segment_settings": asdict(SegmentSettings()),
        "progression_settings": asdict(ProgressionSettings()),
        "simulation_settings": asdict(simulation_of(site)),
        "tissues": [asdict(tissue) for tissue in TISSUES.values()],
        "probes": [asdict(device.probe) for device in probes_of(site).devices],
    }


def _constants(module: ModuleType) -> dict[str, Any]:
    """A module's own numbers: names in capitals that hold a number, or a tuple or dataclass of nothing else."""
    named = {name: _numbers(value) for name, value in vars(module).items() if name.lstrip("_").isupper()}
    return {name: value for name, value in sorted(named.items()) if value is not None}


def _numbers(value: Any) -> Any:
    """The value as JSON holds it; None for what is not made of numbers alone."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: _numbers(getattr(value, field.name)) for field in fields(value)}
        return None if None in parts.values() else parts
    if isinstance(value, tuple):
        each = [_numbers(v) for v in value]
        return None if None in each else each
    return value if isinstance(value, (int, float)) else None
