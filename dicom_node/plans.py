"""The plans a node keeps: a copy of `plan.json` and of exactly the objects it names, so that nothing moves under it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dicom_node.decode.files import INDEX_TAGS, Header, read_header, scan
from dicom_node.decode.linked_frames import REGISTRATION_CLASSES, frames_of
from dicom_node.decode.plan import PlanFile, check_regions, read_plan_file, region_source
from dicom_node.decode.regions import RegionSource, region_file, region_frame_uid
from dicom_node.durable import clear_leftovers, whole_folder
from dicom_node.ledger import Ledger
from dicom_node.records import RegisteredPlan, same_patient
from dicom_node.refusal import Refused

PlanChange = Literal["registered", "unchanged", "replaced"]
_ABSENT = "neither in the plan's folder nor received by the node; send it to the node or put it beside plan.json"


def register_plan(
    source: Path, ledger: Ledger, data_folder: Path, *, objects: Mapping[str, Path] | None = None
) -> RegisteredPlan:
    """The plan as registered. source: its `plan.json` or the folder of it; the same plan again changes nothing.

    The DICOM objects that it names, and those that link their frames of reference to the baseline's, are looked for in
    the plan's folder and then among what the node has received. objects: SOP Instance UID → file, where that folder was
    already searched.
    A plan with the same id and other content replaces the earlier one, and its follow-ups are assessed anew.
    Raises `Refused` as an assessment would, for a wrong `plan.json` and for a region that is not there, is empty, or
    cannot be read; whether a region lies in the baseline's frame and in its scan is told when that is there.
    """
    plan = read_plan_file(source / "plan.json" if source.is_dir() else source)
    held = _Held(ledger, data_folder)
    regions = _regions(plan, held, objects)
    check_regions(plan, regions)
    contents = _files(plan, regions, held)
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
        issuer_of_patient_id=plan.issuer_of_patient_id,
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


@dataclass(frozen=True, eq=False)
class _Held:
    """What the node holds of instances: received by C-STORE, or entered from an archive."""

    ledger: Ledger
    data_folder: Path

    def instance(self, sop_instance_uid: str) -> Header | None:
        instance = self.ledger.instance(sop_instance_uid)
        return None if instance is None else self._header(instance.path)

    def registrations(self, plan: PlanFile) -> Iterable[Header]:
        """The patient's registration objects."""
        patient = plan.patient_id, plan.issuer_of_patient_id
        studies = [s.study_instance_uid for s in self.ledger.studies() if same_patient(*patient, s)]
        for instance in (i for uid in studies for i in self.ledger.instances(uid)):
            header = self._header(instance.path) if instance.sop_class_uid in REGISTRATION_CLASSES else None
            if header is not None:
                yield header

    def baseline_frame_uid(self, plan: PlanFile) -> str | None:
        """The frame of reference of the plan's baseline series; None as long as that is not there."""
        for instance in self.ledger.instances(plan.baseline_study_uid):
            if instance.series_instance_uid == plan.baseline_series_uid:
                header = self._header(instance.path, tags=INDEX_TAGS)
                return header.text("FrameOfReferenceUID") or None if header is not None else None
        return None

    def _header(self, path: str, *, tags: Sequence[str] | None = None) -> Header | None:
        file = self.data_folder / path
        return read_header(file, tags=tags) if file.is_file() else None


def _regions(plan: PlanFile, held: _Held, objects: Mapping[str, Path] | None) -> RegionSource:
    """Where the plan's regions lie: in its folder, else among what the node holds."""
    named = sorted({region.sop_instance_uid for region in plan.regions if region.path is None})
    if not named:
        return region_source(plan, ())
    if objects is None:
        headers = {header.text("SOPInstanceUID"): header for header in scan([plan.folder]).headers}
    else:
        headers = {uid: read_header(objects[uid]) for uid in named if uid in objects}
    for uid in named:
        header = headers.get(uid) or held.instance(uid)
        if header is not None:
            headers[uid] = header
    for link in held.registrations(plan):
        headers.setdefault(link.text("SOPInstanceUID"), link)
    return replace(region_source(plan, headers.values()), absent=_ABSENT)


def _links(plan: PlanFile, source: RegionSource, held: _Held) -> list[Header]:
    """The registration objects that link a region's frame of reference to the baseline's, or may do so as long as that
    is not known; where some lie in the plan's folder, these alone.
    """
    baseline = held.baseline_frame_uid(plan)
    found: dict[str, Header] = {}
    for region in {region_frame_uid(region, source) for region in plan.regions} - {None, baseline}:
        wanted = {region} if baseline is None else {region, baseline}
        links = [link for link in source.registrations if wanted <= frames_of(link)]
        beside = [link for link in links if link.path.is_relative_to(plan.folder)]
        found |= {link.text("SOPInstanceUID"): link for link in beside or links}
    return [found[uid] for uid in sorted(found)]


def _files(plan: PlanFile, source: RegionSource, held: _Held) -> dict[str, bytes]:
    """The plan and the files of its regions and of what links their frames, under the names they get in the copy."""
    uids = sorted({region.sop_instance_uid for region in plan.regions if region.path is None})
    contents = {"plan.json": plan.path.read_bytes()}
    for region in plan.regions:
        named = f"object-{uids.index(region.sop_instance_uid) + 1}.dcm" if region.path is None else region.path
        contents[Path(named).as_posix()] = region_file(region, source).read_bytes()
    for number, link in enumerate(_links(plan, source, held), 1):
        contents[f"registration-{number}.dcm"] = link.path.read_bytes()
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
