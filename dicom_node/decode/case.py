"""Plan, baseline, follow-up and earlier results from files to one `StudyCase`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset

from dicom_node import identity
from dicom_node.decode.choose import Chosen, Wanted, check_slices, choose
from dicom_node.decode.dates import acquired_on
from dicom_node.decode.files import Header, Scan, quiet, scan
from dicom_node.decode.plan import PlanFile, load_plan, notes_on_regions, read_plan_file, region_source
from dicom_node.decode.previous import read_previous
from dicom_node.decode.series import Acquisition, notes_of, read_series, read_volume, refusal_of
from dicom_node.probe_table import ProbeTable, probe_table
from dicom_node.refusal import Refused
from dicom_node.study import StudyCase
from pipeline.assessment import Reason
from pipeline.case import Case, FollowUp, Plan
from pipeline.volume import Volume

#: Tissue around the lesion that a follow-up must show to be registered at all.
_AROUND_MM = 20.0


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
        before = _images(baseline, plan_file, "baseline")
        after = _images(followup, plan_file, "follow-up")
        baseline_acquisition, baseline_volume = _baseline(before, plan_file)
        _check_order(baseline_acquisition, plan_file)
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


def _images(paths: Sequence[Path], plan_file: PlanFile, what: str) -> list[Header]:
    """The folder's headers, all of the plan's patient.

    Raises Refused: empty_folder, several_patients, patient_mismatch, truncated_file.
    """
    found: Scan = scan(paths)
    broken = next((item for item in found.skipped if item.code in ("truncated_file", "unreadable")), None)
    if broken is not None:
        raise Refused(broken.code, broken.text)
    if not found.headers:
        raise Refused("empty_folder", f"There is no DICOM image in the {what} folder; give the folder of the study.")
    patients = {header.text("PatientID") for header in found.headers}
    if len(patients) > 1:
        raise Refused(
            "several_patients",
            f"The {what} folder holds images of {len(patients)} patients; give the folder of one study.",
        )
    if patients != {plan_file.patient_id}:
        raise Refused("patient_mismatch", f"The {what} images are of another patient than the plan; check the folder.")
    return list(found.headers)


def _baseline(headers: Sequence[Header], plan_file: PlanFile) -> tuple[Acquisition, Volume]:
    """The series the plan was made on; of several acquisitions in it, the one whose phase serves the organ best.

    Raises Refused: baseline_series_missing, or why it cannot be read.
    """
    series_uid, study_uid = plan_file.baseline_series_uid, plan_file.baseline_study_uid
    own = [h for h in headers if h.text("SeriesInstanceUID") == series_uid and h.text("StudyInstanceUID") == study_uid]
    if not own:
        raise Refused(
            "baseline_series_missing",
            "The series that the plan was made on is not in the baseline folder; add it or check the plan.",
        )
    series = read_series(own)
    if not series.acquisitions:
        raise refusal_of(series, "The baseline series")
    if len(series.acquisitions) == 1:
        check_slices(series.acquisitions[0])
        return series.acquisitions[0], read_volume(series.acquisitions[0])
    axes = series.acquisitions[0].frames[0].normal_lps
    chosen = choose(own, Wanted(plan_file.organ, own[0], _AROUND_MM, axes))
    return chosen.acquisition, chosen.volume


def _check_order(baseline: Acquisition, plan_file: PlanFile) -> None:
    """Raises Refused: baseline_after_procedure."""
    acquired = identity.acquired_on(baseline.header.text)
    if acquired is not None and acquired > plan_file.procedure_date:
        raise Refused(
            "baseline_after_procedure",
            f"The baseline was acquired on {acquired}, after the plan's procedure_date of {plan_file.procedure_date}; "
            "check the date, or plan on a scan from before the procedure.",
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
    return Wanted(plan.organ, baseline.header, max(spans) + _AROUND_MM, normal)


def _sources(chosen: Chosen) -> tuple[Dataset, ...]:
    return tuple(header.dataset for header in chosen.acquisition.source_headers)


def _notes(chosen: Chosen, baseline: Acquisition) -> tuple[Reason, ...]:
    followup = notes_of(chosen.series, chosen.acquisition)
    before = tuple(Reason(f"baseline_{note.code}", f"Baseline: {note.text}") for note in baseline.stack.notes)
    return followup + before
