"""The plans a node keeps: a copy of `plan.json` and of exactly the objects it names, so that nothing moves under it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from dicom_node.decode.files import scan
from dicom_node.decode.plan import PlanFile, read_plan_file
from dicom_node.durable import clear_leftovers, whole_folder
from dicom_node.ledger import Ledger
from dicom_node.records import RegisteredPlan
from dicom_node.refusal import Refused


def register_plan(
    source: Path, ledger: Ledger, data_folder: Path, *, objects: Mapping[str, Path] | None = None
) -> RegisteredPlan:
    """The plan as registered. source: its `plan.json` or the folder of it; the same plan again changes nothing.

    objects: SOP Instance UID → file, where the objects were already looked for; else the plan's folder is searched.
    A plan with the same id and other content replaces the earlier one, and its follow-ups are assessed anew.
    Raises `Refused` as `read_plan_file` does, and `region_missing` for an object that is not there.
    """
    plan = read_plan_file(source / "plan.json" if source.is_dir() else source)
    contents = {"plan.json": plan.path.read_bytes(), **_regions(plan, objects)}
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


def find_plan(ledger: Ledger, plan_id: str) -> RegisteredPlan:
    """Raises `Refused` for a plan that is not registered."""
    for plan in ledger.plans():
        if plan.plan_id == plan_id:
            return plan
    raise Refused("unknown_plan", f"There is no plan {plan_id}; `marginwatch plan list` shows those there are.")


def _regions(plan: PlanFile, objects: Mapping[str, Path] | None) -> dict[str, bytes]:
    """The files of the regions that the plan names, under the names they get in the copy."""
    named = [region for lesion in plan.lesions for region in (lesion.tumor, lesion.simulated_zone)]
    regions = [region for region in [*named, plan.organ_mask] if region is not None]
    uids = {region.sop_instance_uid for region in regions if region.sop_instance_uid is not None}
    if objects is None and uids:
        headers = scan([plan.folder], tags=("SOPInstanceUID",)).headers
        objects = {header.text("SOPInstanceUID"): header.path for header in headers}
    contents: dict[str, bytes] = {}
    for region in regions:
        if region.path is not None:
            file = _inside(plan.folder, region.path, region.key)
            contents[Path(region.path).as_posix()] = _read([file], region.key)
        else:
            uid = str(region.sop_instance_uid)
            name = f"object-{sorted(uids).index(uid) + 1}.dcm"
            contents[name] = _read([objects[uid]] if objects and uid in objects else [], region.key)
    return contents


def _inside(folder: Path, relative: str, key: str) -> Path:
    """The file a plan names by a relative path, which must not lead out of the plan's folder."""
    file = (folder / relative).resolve()
    if not file.is_relative_to(folder.resolve()) or ".." in Path(relative).parts:
        raise Refused("plan_invalid", f"plan.json: {key}.path must lie in the plan's own folder.")
    return file


def _read(files: Iterable[Path], key: str) -> bytes:
    for file in files:
        if file.is_file():
            return file.read_bytes()
    raise Refused("region_missing", f"plan.json: the object that {key} names is not in the plan's folder.")


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
