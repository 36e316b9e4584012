"""The plans a node keeps: a copy of `plan.json` and of exactly the objects it names, so that nothing moves under it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from dicom_node.decode.plan import PlanFile, check_regions, read_plan_file, region_source
from dicom_node.decode.regions import RegionSource, region_file
from dicom_node.durable import clear_leftovers, whole_folder
from dicom_node.ledger import Ledger
from dicom_node.records import RegisteredPlan
from dicom_node.refusal import Refused

PlanChange = Literal["registered", "unchanged", "replaced"]


def register_plan(
    source: Path, ledger: Ledger, data_folder: Path, *, objects: Mapping[str, Path] | None = None
) -> RegisteredPlan:
    """The plan as registered. source: its `plan.json` or the folder of it; the same plan again changes nothing.

    objects: SOP Instance UID → file, where the objects were already looked for; else the plan's folder is searched.
    A plan with the same id and other content replaces the earlier one, and its follow-ups are assessed anew.
    Raises `Refused` as an assessment would, for a wrong `plan.json` and for a region that is not there, is empty, or
    cannot be read; whether a region lies in the baseline's frame and in its scan is told when that is there.
    """
    plan = read_plan_file(source / "plan.json" if source.is_dir() else source)
    regions = region_source(plan, objects)
    check_regions(plan, regions)
    contents = _files(plan, regions)
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    registered = RegisteredPlan(
        plan_id=plan.plan_id,
        patient_id=plan.patient_id,
        procedure_date=plan.procedure_date.strftime("%Y%m%d"),
        baseline_study_instance_uid=plan.baseline_study_uid,
        digest=digest.hexdigest(),
        folder=f"plans/{digest.hexdigest()[:16]}",
        added_at=0.0,
    )
    _write_folder(data_folder / registered.folder, contents)
    ledger.add_plan(registered)
    return registered


def change_of(plan: RegisteredPlan, before: Iterable[RegisteredPlan]) -> PlanChange:
    """What registering the plan changed. before: the plans known until then."""
    digests = {known.plan_id: known.digest for known in before}
    if plan.plan_id not in digests:
        return "registered"
    return "unchanged" if digests[plan.plan_id] == plan.digest else "replaced"


def find_plan(ledger: Ledger, plan_id: str) -> RegisteredPlan:
    """Raises `Refused` for a plan that is not registered."""
    for plan in ledger.plans():
        if plan.plan_id == plan_id:
            return plan
    raise Refused("unknown_plan", f"There is no plan {plan_id}; `marginwatch plan list` shows those there are.")


def _files(plan: PlanFile, source: RegionSource) -> dict[str, bytes]:
    """The plan and the files of the regions that it names, under the names they get in the copy."""
    uids = sorted({region.sop_instance_uid for region in plan.regions if region.path is None})
    contents = {"plan.json": plan.path.read_bytes()}
    for region in plan.regions:
        named = f"object-{uids.index(region.sop_instance_uid) + 1}.dcm" if region.path is None else region.path
        contents[Path(named).as_posix()] = region_file(region, source).read_bytes()
    return contents


def _write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files into a folder that appears whole; one that is there already is kept if it holds just these."""
    clear_leftovers(folder)
    if _holds(folder, contents):
        return
    try:
        with whole_folder(folder) as fresh:
            for name, content in contents.items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).write_bytes(content)
    except OSError:
        if not _holds(folder, contents):  # else another process registered the same plan at the same moment
            raise


def _holds(folder: Path, contents: Mapping[str, bytes]) -> bool:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return files.keys() == contents.keys() and all(files[name].read_bytes() == contents[name] for name in contents)
