"""The scan that a plan was made on, from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dicom_node import identity
from dicom_node.decode.choose import Wanted, check_slices, choose
from dicom_node.decode.files import Header, Scan, scan
from dicom_node.decode.plan import PlanFile
from dicom_node.decode.series import Acquisition, read_series, read_volume, refusal_of
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
    patients = {header.text("PatientID") for header in found.headers}
    if len(patients) > 1:
        raise Refused(
            "several_patients",
            f"The {what} folder holds images of {len(patients)} patients; give the folder of one study.",
        )
    issuers = {header.text("IssuerOfPatientID") for header in found.headers} - {""}
    other_issuer = bool(plan_file.issuer_of_patient_id) and bool(issuers - {plan_file.issuer_of_patient_id})
    if patients != {plan_file.patient_id} or other_issuer:
        raise Refused("patient_mismatch", f"The {what} images are of another patient than the plan; check the folder.")
    return list(found.headers)


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
