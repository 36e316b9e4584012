"""Plan, baseline, follow-up and regions of one patient, or of several: by patient ID and by who issued it."""

from __future__ import annotations

import pytest
from pydicom import dcmread

from dicom_node.decode.case import read_case
from dicom_node.refusal import Refused


def read(case):
    return read_case(case.plan, baseline=[case.baseline], followup=[case.followup], previous=[])


def refused(case):
    with pytest.raises(Refused) as problem:
        read(case)
    assert problem.value.text.endswith(".")
    return problem.value.code


def test_two_patients_in_a_folder(made_case, kit):
    other = kit.Series(kit.ramp(3), patient_id="OTHER", study="after")
    kit.write(other.images(), made_case.followup, prefix="other")
    assert refused(made_case) == "several_patients"


def test_a_plan_for_another_patient(made_case):
    made_case.write_plan({**made_case.document, "patient_id": "OTHER"})
    assert refused(made_case) == "patient_mismatch"


def issued(series, issuer):
    """The slices of the series, with the issuer of their patient ID."""
    series.tags["IssuerOfPatientID"] = issuer
    return series.images()


def test_one_patient_id_of_two_issuers_in_a_folder_is_two_patients(made_case, kit):
    kit.write(issued(made_case.followup_series, "HERE")[:10], made_case.followup)
    assert read(made_case).patient_id == "MADE-1"  # who does not say may be the same
    kit.save(issued(made_case.followup_series, "THERE")[12], made_case.followup / "012")
    with pytest.raises(Refused, match="holds images of one patient ID from 2 issuers") as problem:
        read(made_case)
    assert problem.value.code == "several_patients"


def test_baseline_and_followup_of_two_issuers_are_of_two_patients(made_case, kit):
    kit.write(issued(made_case.followup_series, "HERE"), made_case.followup)
    assert read(made_case).patient_id == "MADE-1"
    kit.write(issued(made_case.baseline_series, "THERE"), made_case.baseline)
    with pytest.raises(Refused, match="another issuer than the baseline's") as problem:
        read(made_case)
    assert problem.value.code == "patient_mismatch"


def test_a_plan_that_names_the_issuer_takes_nothing_of_another(made_case, kit):
    made_case.write_plan({**made_case.document, "issuer_of_patient_id": "HERE"})
    assert read(made_case).patient_id == "MADE-1"
    region = dcmread(made_case.plan.parent / "seg")
    region.IssuerOfPatientID = "THERE"
    region.save_as(made_case.plan.parent / "seg")
    assert refused(made_case) == "patient_mismatch"
    region.IssuerOfPatientID = "HERE"
    region.save_as(made_case.plan.parent / "seg")
    kit.write(issued(made_case.followup_series, "THERE"), made_case.followup)
    assert refused(made_case) == "patient_mismatch"


def test_patient_ids_are_compared_without_padding(made_case):
    made_case.write_plan({**made_case.document, "patient_id": " MADE-1 "})
    assert read(made_case).patient_id == "MADE-1"
