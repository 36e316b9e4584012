"""The coded concepts that the results are written in, each with where it comes from.

Public codes carry the context group (CID) of DICOM PS3.16 that they were taken from. What no public scheme names is in
the private scheme `99MARGINW`, which every object that uses it declares.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydicom.sr.coding import Code

from pipeline.assessment import FindingKind
from pipeline.case import Energy, Organ, Outcome

PRIVATE_SCHEME = "99MARGINW"
PRIVATE_SCHEME_NAME = "Marginwatch ablation follow-up concepts"
PRIVATE_SCHEME_ORGANIZATION = "Marginwatch"

# What a segment is
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")  # CID 7150
NEOPLASM = Code("108369006", "SCT", "Neoplasm")  # CID 7159
NON_ENHANCING_LESION = Code("C81175", "NCIt", "Non-Enhancing Lesion")  # CID 7159; no public code says ablation zone
ENHANCING_LESION = Code("C113842", "NCIt", "Enhancing Lesion")  # CID 7159
TUMOR_RECURRENCE = Code("25173007", "SCT", "Recurrence of tumor")  # CID 6146
ABLATION_ZONE = Code("ABLZONE", PRIVATE_SCHEME, "Ablation zone")
SIMULATION = Code("SIMULAT", PRIVATE_SCHEME, "Simulation of heat transfer in tissue")  # CID 7162 has none
INDEX_TUMOR = Code("INDEXTUM", PRIVATE_SCHEME, "Index tumor mapped onto follow-up")
UNCOVERED_TUMOR = Code("UNCOVTUM", PRIVATE_SCHEME, "Index tumor outside ablation zone")

# What is withdrawn
REJECTED_FOR_QUALITY = Code("113001", "DCM", "Rejected for Quality Reasons")  # CID 7010, IHE IOCM

# What is measured
VOLUME = Code("118565006", "SCT", "Volume")  # CID 7472
LONGEST_DIAMETER = Code("L0JK", "IBSI", "Maximum 3D Diameter of a Mesh")  # CID 7470
MINIMUM = Code("255605001", "SCT", "Minimum")  # CID 7464
MINIMAL_MARGIN = Code("MAM", PRIVATE_SCHEME, "Minimal ablative margin")
MINIMAL_MARGIN_LOW = Code("MAMLOW", PRIVATE_SCHEME, "Minimal ablative margin, lower 95% limit")
MINIMAL_MARGIN_HIGH = Code("MAMHIGH", PRIVATE_SCHEME, "Minimal ablative margin, upper 95% limit")
ORGAN_LIMITED_MARGIN = Code("MAMORG", PRIVATE_SCHEME, "Minimal ablative margin, edge of organ credited")
PROBABILITY_BELOW_0MM = Code("PMAMLT0", PRIVATE_SCHEME, "Probability of minimal ablative margin below 0 mm")
PROBABILITY_BELOW_REQUIRED = Code("PMAMLTREQ", PRIVATE_SCHEME, "Probability of ablative margin below required")
REQUIRED_MARGIN = Code("REQMARGIN", PRIVATE_SCHEME, "Required ablative margin")
COVERED_TUMOR = Code("TUMCOV", PRIVATE_SCHEME, "Tumor volume inside ablation zone")
SURFACE_BELOW_0MM = Code("SURFLT0", PRIVATE_SCHEME, "Tumor surface with margin below 0 mm")
SURFACE_BELOW_5MM = Code("SURFLT5", PRIVATE_SCHEME, "Tumor surface with margin below 5 mm")
UNCOVERED_VOLUME = Code("UNCOVVOL", PRIVATE_SCHEME, "Tumor volume outside ablation zone")

# Units, UCUM
MILLIMETER = Code("mm", "UCUM", "mm")
CUBIC_CENTIMETER = Code("cm3", "UCUM", "cm3")  # CID 7462; one ml
PERCENT = Code("%", "UCUM", "%")
DAYS = Code("d", "UCUM", "days")

# What is judged
OUTCOME = Code("OUTCOME", PRIVATE_SCHEME, "Outcome of ablation at follow-up")
NEEDS_REVIEW = Code("REVIEW", PRIVATE_SCHEME, "Needs review by a radiologist")
REGISTRATION = Code("REGISTR", PRIVATE_SCHEME, "Registration to baseline")
COMMENT = Code("121106", "DCM", "Comment")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500
YES = Code("373066001", "SCT", "Yes")  # CID 230
NO = Code("373067005", "SCT", "No")  # CID 230

OUTCOMES: Mapping[Outcome, Code] = MappingProxyType(
    {
        "complete": Code("COMPLETE", PRIVATE_SCHEME, "Complete coverage with required margin"),
        "narrow_margin": Code("NARROW", PRIVATE_SCHEME, "Covered, margin below required"),
        "incomplete_coverage": Code("INCOMPLETE", PRIVATE_SCHEME, "Incomplete coverage or residual tumor"),
        "local_progression": Code("PROGRESS", PRIVATE_SCHEME, "Local tumor progression"),
        "not_assessable": Code("NOTASSESS", PRIVATE_SCHEME, "Not assessable"),
    }
)
FINDINGS: Mapping[FindingKind, Code] = MappingProxyType(
    {
        "residual_tumor": ENHANCING_LESION,
        "new_enhancement": ENHANCING_LESION,
        "zone_growth": TUMOR_RECURRENCE,
        "uncovered_tumor": NEOPLASM,
    }
)

# Where and when
ORGANS: Mapping[Organ, Code] = MappingProxyType(
    {
        "liver": Code("10200004", "SCT", "Liver"),  # CID 7154
        "lung": Code("39607008", "SCT", "Lung"),  # CID 7155
        "kidney": Code("64033007", "SCT", "Kidney"),  # CID 7154
        "bone": Code("272673000", "SCT", "Bone"),  # CID 6202
        "soft_tissue": Code("87784001", "SCT", "Soft tissue"),  # CID 7166
    }
)
ENERGIES: Mapping[Energy, Code] = MappingProxyType(
    {
        "cryoablation": Code("C15215", "NCIt", "Cryoablation"),  # CID 6320
        "radiofrequency": Code("879916008", "SCT", "Radiofrequency ablation"),  # CID 4409
        "microwave": Code("MWABLATION", PRIVATE_SCHEME, "Microwave ablation"),  # none found in a DICOM context group
    }
)
POSTTREATMENT = Code("126074", "DCM", "Posttreatment")  # CID 6146
CT_PROCEDURE = Code("25045-6", "LN", "CT unspecified body region")  # CID 100
MR_PROCEDURE = Code("25056-3", "LN", "MRI unspecified body region")  # CID 100

# Who and what made it
DEVICE_OBSERVER = Code("121007", "DCM", "Device")  # CID 270
MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")  # CID 7021
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")  # CID 7005
REPORT_TITLE = Code("18748-4", "LN", "Diagnostic Imaging Report")  # CID 7000
