"""The scan that a plan was made on, from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dicom_node import identity
from dicom_node.decode.choose import Wanted, check_slices, choose
from dicom_node.decode.files import Header, Scan, scan
from dicom_node.decode.plan import PlanFile
from dicom_node.decode.series import Acquisition, read_series, read_volume, refusal_of
from dicom_node.records import same_patient
from dicom_node.refusal import Refused
from pipeline.volume import Volume

#: Tissue around the lesion that a follow-up must show to be registered at all.
AROUND_MM = 20.0


def images_of_patient(paths: Sequence[Path], plan_file: PlanFile, what: str) -> list[Header]:
    """The folder's headers, all of the plan's patient.

    Raises Refused: empty_folder, several_patients, patient_mismatch, truncated_file.
    """
    found: Scan = scan(paths)
    broken = next((item for item in found.skipped if item.code in ("truncated_file", "unreadable")), None)
    if broken is not None:
        raise Refused(broken.code, broken.text)
    if not found.headers:
        raise Refused("empty_folder", f"There is no DICOM image in the {what} folder; give the folder of the study.")
    patients = len({header.text("PatientID") for header in found.headers})
    if max(patients, issuers := len(_issuers(found.headers))) > 1:
        told = f"{patients} patients" if patients > 1 else f"one patient ID from {issuers} issuers"
        raise Refused("several_patients", f"The {what} folder holds images of {told}; give the folder of one study.")
    if not all(same_patient(*header.patient, plan_file) for header in found.headers):
        raise Refused("patient_mismatch", f"The {what} images are of another patient than the plan; check the folder.")
    return list(found.headers)


def check_one_patient(baseline: Sequence[Header], followup: Sequence[Header]) -> None:
    """Raises Refused ``patient_mismatch`` where the plan says no issuer of its patient ID and the two say different
    ones."""
    if len(_issuers([*baseline, *followup])) > 1:
        text = "The follow-up's patient ID is of another issuer than the baseline's, so of another patient"
        raise Refused("patient_mismatch", f"{text}; check the folder.")


def _issuers(headers: Sequence[Header]) -> set[str]:
    """Who issued the patient IDs, as far as the headers say."""
    return {header.text("IssuerOfPatientID") for header in headers} - {""}


def of_baseline(headers: Sequence[Header], plan_file: PlanFile) -> list[Header]:
    """Those of the series that the plan was made on."""
    series_uid, study_uid = plan_file.baseline_series_uid, plan_file.baseline_study_uid
    return [h for h in headers if h.text("SeriesInstanceUID") == series_uid and h.text("StudyInstanceUID") == study_uid]


def read_baseline(headers: Sequence[Header], plan_file: PlanFile) -> tuple[Acquisition, Volume]:
    """The series the plan was made on; of several acquisitions in it, the one whose phase serves the organ best.

    Raises Refused: baseline_series_missing, baseline_after_procedure, or why it cannot be read.
    """
    own = of_baseline(headers, plan_file)
    if not own:
        raise Refused(
            "baseline_series_missing",
            "The series that the plan was made on is not in the baseline folder; add it or check the plan.",
        )
    series = read_series(own)
    if not series.acquisitions:
        raise refusal_of(series, "The baseline series")
    if len(series.acquisitions) == 1:
        acquisition = series.acquisitions[0]
        check_slices(acquisition)
        volume = read_volume(acquisition)
    else:
        axes = series.acquisitions[0].frames[0].normal_lps
        chosen = choose(own, Wanted(plan_file.organ, own[0], AROUND_MM, axes))
        acquisition, volume = chosen.acquisition, chosen.volume
    _check_order(acquisition, plan_file)
    return acquisition, volume


def _check_order(baseline: Acquisition, plan_file: PlanFile) -> None:
    """Raises Refused: baseline_after_procedure."""
    acquired = identity.acquired_on(baseline.header.text)
    if acquired is not None and acquired > plan_file.procedure_date:
        raise Refused(
            "baseline_after_procedure",
            f"The baseline was acquired on {acquired}, after the plan's procedure_date of {plan_file.procedure_date}; "
            "check the date, or plan on a scan from before the procedure.",
        )
