"""The plan folder: `plan.json`, checked strictly, and the regions it names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import cast, get_args

from dicom_node.decode.files import Header, scan
from dicom_node.decode.linked_frames import REGISTRATION_CLASSES
from dicom_node.decode.region_ref import RegionRef, region_ref
from dicom_node.decode.regions import RegionSource, check_region, read_region, region_frame_uid
from dicom_node.decode.schema import Node, read_document
from dicom_node.decode.treatment import read_applicators, read_protocol, with_devices
from dicom_node.probe_table import ProbeTable
from dicom_node.records import same_patient
from dicom_node.refusal import Refused
from pipeline.assessment import Reason
from pipeline.case import Applicator, Energy, Lesion, Organ, Plan, ProtocolPhase
from pipeline.geometry import Geometry
from pipeline.volume import Mask, Volume

#: More than is asked for (0.5 to 1 cm: Ahmed et al., Radiology 2014;273:241-260), so a slip of unit or decimal point.
MOST_REQUIRED_MM = 30.0


@dataclass(frozen=True)
class PlannedLesion:
    """One lesion as written in the plan; its regions are named, not read."""

    lesion_id: str
    required_margin_mm: float
    tumor: RegionRef
    simulated_zone: RegionRef | None
    applicators: tuple[Applicator, ...]
    protocol: tuple[ProtocolPhase, ...]


@dataclass(frozen=True)
class PlanFile:
    """A valid `plan.json`. path: the file; the DICOM objects and NIfTI files it names lie in its folder."""

    path: Path
    plan_id: str
    patient_id: str
    organ: Organ
    energy: Energy
    procedure_date: date
    baseline_study_uid: str
    baseline_series_uid: str
    lesions: tuple[PlannedLesion, ...]
    organ_mask: RegionRef | None
    vessel_mask: RegionRef | None = None
    issuer_of_patient_id: str = ""
    """Who issued the patient ID; empty where the plan does not say."""

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def regions(self) -> tuple[RegionRef, ...]:
        """Every region that the plan names."""
        named = [region for lesion in self.lesions for region in (lesion.tumor, lesion.simulated_zone)]
        return tuple(region for region in (*named, self.organ_mask, self.vessel_mask) if region is not None)

    @property
    def lesion_ids(self) -> tuple[str, ...]:
        return tuple(lesion.lesion_id for lesion in self.lesions)


def read_plan_file(path: Path) -> PlanFile:
    """The plan written in a `plan.json`, without reading any image.

    Raises Refused: plan_missing, plan_unreadable, plan_invalid (naming the path of the wrong key).
    """
    root = read_document(path).object(
        required=("plan_id", "patient_id", "organ", "procedure", "baseline", "lesions"),
        optional=("issuer_of_patient_id", "organ_mask", "vessel_mask"),
    )
    procedure = root.child("procedure").object(required=("date", "energy"))
    baseline = root.child("baseline").object(required=("study_instance_uid", "series_instance_uid"))
    energy = cast(Energy, procedure.child("energy").one_of(get_args(Energy)))
    lesions = tuple(_lesion(node, energy) for node in root.child("lesions").list(at_least=1))
    seen: set[str] = set()
    for number, lesion in enumerate(lesions):
        if lesion.lesion_id in seen:
            raise Node(None, f"lesions[{number}].lesion_id").wrong(f"{lesion.lesion_id} is given twice")
        seen.add(lesion.lesion_id)
    return PlanFile(
        path=path,
        plan_id=root.child("plan_id").name(),
        patient_id=root.child("patient_id").text(),
        organ=cast(Organ, root.child("organ").one_of(get_args(Organ))),
        energy=energy,
        procedure_date=procedure.child("date").day(),
        baseline_study_uid=baseline.child("study_instance_uid").text(),
        baseline_series_uid=baseline.child("series_instance_uid").text(),
        lesions=lesions,
        organ_mask=region_ref(root.child("organ_mask")) if root.has("organ_mask") else None,
        vessel_mask=region_ref(root.child("vessel_mask")) if root.has("vessel_mask") else None,
        issuer_of_patient_id=root.child("issuer_of_patient_id").line() if root.has("issuer_of_patient_id") else "",
    )


def region_source(plan_file: PlanFile, headers: Iterable[Header] | None = None) -> RegionSource:
    """Where the plan's regions lie. headers: the objects among which they are, where these were already looked for;
    else the plan's folder is searched, if any region is a DICOM object.
    """
    if headers is None:
        by_uid = any(region.path is None for region in plan_file.regions)
        headers = scan([plan_file.folder]).headers if by_uid else ()
    objects = {header.text("SOPInstanceUID"): header for header in headers}
    links = [h for h in objects.values() if h.text("SOPClassUID") in REGISTRATION_CLASSES]
    mine = tuple(link for link in links if same_patient(*link.patient, plan_file))
    return RegionSource(
        plan_file.folder,
        plan_file.patient_id,
        objects,
        mine,
        issuer_of_patient_id=plan_file.issuer_of_patient_id,
    )


def check_regions(plan_file: PlanFile, source: RegionSource) -> None:
    """Raises Refused as `load_plan` does, for all that can be told of the regions without the baseline."""
    for region in plan_file.regions:
        check_region(region, source)


def notes_on_regions(plan_file: PlanFile, source: RegionSource, baseline_frame_uid: str) -> tuple[Reason, ...]:
    """What a reader should know of how the regions were brought to the baseline. Raises Refused as `load_plan`."""
    frames = {region.key: region_frame_uid(region, source) for region in plan_file.regions}
    carried = [key for key, frame_uid in frames.items() if frame_uid not in (None, baseline_frame_uid)]
    if not carried:
        return ()
    text = "drawn in another frame of reference and carried to the baseline's by a Spatial Registration object"
    return (Reason("region_carried_over", f"Regions {text}, whose accuracy is not checked: {', '.join(carried)}."),)


def load_plan(plan_file: PlanFile, baseline: Volume, source: RegionSource, probes: ProbeTable) -> Plan:
    """The plan with its regions read, in the baseline's frame, and its applicators' devices looked up in `probes`.

    Raises Refused, naming the key: region_missing, region_wrong_frame, link_unusable, links_disagree,
    region_unreadable, empty_region, patient_mismatch, tumor_outside_baseline, region_outside_baseline.
    """
    grid = baseline.geometry

    return Plan(
        plan_id=plan_file.plan_id,
        organ=plan_file.organ,
        energy=plan_file.energy,
        procedure_date=plan_file.procedure_date,
        baseline=baseline,
        lesions=tuple(
            Lesion(
                lesion_id=lesion.lesion_id,
                required_margin_mm=lesion.required_margin_mm,
                tumor=_tumor(lesion.tumor, source, grid),
                simulated_zone=_within(lesion.simulated_zone, source, grid),
                applicators=with_devices(lesion.applicators, plan_file.energy, probes),
                protocol=lesion.protocol,
            )
            for lesion in plan_file.lesions
        ),
        organ_mask=_within(plan_file.organ_mask, source, grid),
        vessel_mask=_within(plan_file.vessel_mask, source, grid),
    )


def _tumor(ref: RegionRef, source: RegionSource, baseline: Geometry) -> Mask:
    """The tumor region. Raises Refused ``tumor_outside_baseline`` where its center is not in the baseline scan."""
    mask = read_region(ref, source, baseline)
    if not bool(baseline.contains(mask.centroid_lps_mm)):
        raise Refused("tumor_outside_baseline", f"{ref.key} lies outside the baseline scan; check the baseline series.")
    return mask


def _within(ref: RegionRef | None, source: RegionSource, baseline: Geometry) -> Mask | None:
    """Another region, where the plan names it. Raises Refused ``region_outside_baseline`` where no voxel of it lies in
    the baseline scan.
    """
    if ref is None:
        return None
    mask = read_region(ref, source, baseline)
    if not baseline.contains(mask.points_lps_mm()).any():
        raise Refused(
            "region_outside_baseline", f"{ref.key} lies outside the baseline scan; check the baseline series."
        )
    return mask


def _lesion(node: Node, energy: Energy) -> PlannedLesion:
    node.object(
        required=("lesion_id", "required_margin_mm", "tumor"), optional=("simulated_zone", "applicators", "protocol")
    )
    return PlannedLesion(
        lesion_id=node.child("lesion_id").name(),
        required_margin_mm=node.child("required_margin_mm").number(least=0, most=MOST_REQUIRED_MM),
        tumor=region_ref(node.child("tumor")),
        simulated_zone=region_ref(node.child("simulated_zone")) if node.has("simulated_zone") else None,
        applicators=read_applicators(node, energy) if node.has("applicators") else (),
        protocol=read_protocol(node, energy) if node.has("protocol") else (),
    )
