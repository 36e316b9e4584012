"""Plan, baseline, follow-up and earlier results from files to one `StudyCase`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset

from dicom_node.decode.baseline import AROUND_MM, check_one_patient, images_of_patient, read_baseline
from dicom_node.decode.choose import Chosen, Wanted, choose
from dicom_node.decode.dates import acquired_on
from dicom_node.decode.files import Header, quiet
from dicom_node.decode.plan import PlanFile, load_plan, notes_on_regions, read_plan_file, region_source
from dicom_node.decode.previous import read_previous
from dicom_node.decode.series import Acquisition, notes_of
from dicom_node.probe_table import ProbeTable, probe_table
from dicom_node.refusal import Refused
from dicom_node.study import StudyCase
from pipeline.assessment import Reason
from pipeline.case import Case, FollowUp, Plan


def read_case(
    plan: Path,
    *,
    baseline: Sequence[Path],
    followup: Sequence[Path],
    previous: Sequence[Path],
    probes: ProbeTable | None = None,
) -> StudyCase:
    """Everything one assessment needs, from files.

    plan: the `plan.json`; baseline, followup: DICOM files or folders, with any number of series, from which the plan's
    series and the best follow-up series are taken; previous: result folders of earlier follow-ups of the plan.
    Raises `Refused` with a sentence for whatever cannot be used.
    """
    with quiet():
        plan_file = read_plan_file(plan)
        before = images_of_patient(baseline, plan_file, "baseline")
        after = images_of_patient(followup, plan_file, "follow-up")
        check_one_patient(before, after)
        baseline_acquisition, baseline_volume = read_baseline(before, plan_file)
        source = region_source(plan_file)
        loaded = load_plan(plan_file, baseline_volume, source, probes or probe_table())
        carried = notes_on_regions(plan_file, source, baseline_volume.geometry.frame_uid)
        after = _one_study(after, plan_file)
        chosen = choose(after, _wanted(loaded, baseline_acquisition))
        acquired = acquired_on(chosen.acquisition.header)
        if acquired < plan_file.procedure_date:
            raise Refused(
                "followup_before_procedure",
                "The follow-up was acquired before the procedure of the plan; give a later study.",
            )
        days = (acquired - plan_file.procedure_date).days
        earlier = read_previous(
            previous, plan_file, baseline_frame_uid=baseline_volume.geometry.frame_uid, before_days=days
        )
    header = chosen.acquisition.header
    return StudyCase(
        case=Case(loaded, FollowUp(acquired, chosen.volume, chosen.phase), earlier),
        patient_id=plan_file.patient_id,
        study_instance_uid=header.text("StudyInstanceUID"),
        series_instance_uid=header.text("SeriesInstanceUID"),
        baseline_study_instance_uid=plan_file.baseline_study_uid,
        baseline_series_instance_uid=plan_file.baseline_series_uid,
        choice=chosen.choice,
        source_images=_sources(chosen),
        sources_match_grid=chosen.acquisition.slices_are_sources,
        notes=(*_notes(chosen, baseline_acquisition), *carried),
    )


def _one_study(headers: Sequence[Header], plan_file: PlanFile) -> list[Header]:
    """The follow-up study's headers. Raises Refused: several_studies, followup_is_baseline."""
    images = [header for header in headers if header.text("Modality") in ("CT", "MR")]
    studies = {header.text("StudyInstanceUID") for header in images or headers}
    if len(studies) > 1:
        raise Refused(
            "several_studies", f"The follow-up folder holds {len(studies)} studies; give the folder of one study."
        )
    if studies == {plan_file.baseline_study_uid}:
        raise Refused("followup_is_baseline", "The follow-up is the plan's baseline study; give a later study.")
    return [header for header in headers if header.text("StudyInstanceUID") in studies]


def _wanted(plan: Plan, baseline: Acquisition) -> Wanted:
    normal = baseline.frames[0].normal_lps
    spans = []
    for lesion in plan.lesions:
        along = lesion.tumor.points_lps_mm() @ normal
        spans.append(float(along.max() - along.min()) + 2 * lesion.required_margin_mm)
    return Wanted(plan.organ, baseline.header, max(spans) + AROUND_MM, normal)


def _sources(chosen: Chosen) -> tuple[Dataset, ...]:
    return tuple(header.dataset for header in chosen.acquisition.source_headers)


def _notes(chosen: Chosen, baseline: Acquisition) -> tuple[Reason, ...]:
    followup = notes_of(chosen.series, chosen.acquisition)
    before = tuple(Reason(f"baseline_{note.code}", f"Baseline: {note.text}") for note in baseline.stack.notes)
    return followup + before
