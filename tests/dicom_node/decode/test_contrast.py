"""What tags say of contrast: never that there was some where it may have gone elsewhere, or come later."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import Dataset

from dicom_node.decode.choose import Wanted, choose, contrast_phase
from dicom_node.decode.contrast import contrast_told
from dicom_node.decode.files import scan
from dicom_node.decode.series import read_series, read_volume


@pytest.fixture
def acquired(kit, tmp_path):
    """Writes one made series with some tags and reads it."""

    def writer(modality="CT", **tags):
        made = kit.Series(kit.ramp(), modality=modality, tags={"SeriesDescription": "AX", **tags})
        (acquisition,) = read_series(scan([kit.write(made.images(), tmp_path / "in")]).headers).acquisitions
        return acquisition

    return writer


def item(**values):
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        ("IOHEXOL", True),
        ("APPLIED", True),
        ("OMNIPAQUE 350", True),
        ("NON-IONIC IODINE", True),
        ("Oral & IV", True),
        ("GASTROGRAFIN PO, ULTRAVIST I.V.", True),
        ("ORAL", None),
        ("Omnipaque oral", None),
        ("RECTAL", None),
        ("WATER", None),
        ("Barium sulfate", None),
        ("GASTROVIEW", None),
        ("Readi-Cat 2", None),
        ("UNKNOWN", None),
        ("?", None),
        ("", None),
        ("NO", False),
        ("None given", False),
        ("n/a", False),
        ("-", False),
        ("0 ml", False),
        ("WITHOUT CONTRAST", False),
        ("NOT APPLIED", False),
        ("ohne KM", False),
        ("non-contrast", False),
    ],
)
def test_the_agent(acquired, agent, told):
    found, reason = contrast_told(acquired(ContrastBolusAgent=agent))
    assert found is told
    assert reason.endswith(".")


@pytest.mark.parametrize(
    ("route", "told"),
    [
        *[(route, True) for route in ("", "IV", "INTRAVENOUS", "Oral & IV", "L ARM")],
        *[(route, None) for route in ("ORAL", "RECTAL", "PO", "Oral / rectal", "INTRATHECAL", "INTRA-ARTICULAR")],
    ],
)
def test_the_route(acquired, route, told):
    assert contrast_told(acquired(ContrastBolusAgent="IOHEXOL", ContrastBolusRoute=route))[0] is told


@pytest.mark.parametrize(
    ("code", "meaning", "told"),
    [
        ("47625008", "Intravenous route", True),
        ("26643006", "", None),
        ("37161004", "", None),
        ("XYZ", "By mouth", None),
        ("G-D140", "", None),
    ],
)
def test_routes_and_agents_as_codes(acquired, code, meaning, told):
    route = item(CodeValue=code, CodeMeaning=meaning)
    inner = item(CodeValue="C-B0322", CodeMeaning="Iohexol", ContrastBolusAdministrationRouteSequence=[route])
    assert contrast_told(acquired(ContrastBolusAgentSequence=[inner]))[0] is told
    assert contrast_told(acquired(ContrastBolusAgent="IOHEXOL", ContrastBolusAgentSequence=[inner]))[0] is told
    outer = {"ContrastBolusAgent": "IOHEXOL", "ContrastBolusAdministrationRouteSequence": [route]}
    assert contrast_told(acquired(**outer))[0] is told
    also = item(CodeValue="1", CodeMeaning="Iopromide")
    assert contrast_told(acquired(ContrastBolusAgentSequence=[inner, also]))[0] is True
    assert contrast_told(acquired(ContrastBolusAgentSequence=[]))[0] is None


@pytest.mark.parametrize(
    "description",
    [
        "ABD W/O CONTRAST",
        "WITHOUT",
        "LIVER PRE",
        "T1_FS_PRE_GD",
        "NATIV",
        "Abdomen nativ 3.0",
        "NON-CON",
        "ohne KM",
        "Unenhanced",
        "ABD C-",
        "PRE & POST GD",
        "precontrast",
    ],
)
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_description_that_denies_contrast_wins_over_a_copied_agent(acquired, modality, description):
    found = contrast_told(acquired(modality, ContrastBolusAgent="IOHEXOL", SeriesDescription=description))
    assert found == (False, "Its description says that it was scanned without contrast.")


@pytest.mark.parametrize("description", ["C-SPINE", "T1 WITHOUT FS", "PRESAT", "LIVER (AP)", "VIBE"])
def test_other_descriptions_do_not(acquired, description):
    assert contrast_told(acquired(ContrastBolusAgent="IOHEXOL", SeriesDescription=description))[0] is True


def test_frames_from_before_the_injection(acquired):
    """As multi-frame images say it, frame by frame."""
    acquisition = acquired(ContrastBolusAgent="GADOBUTROL")
    header = acquisition.frames[0].header
    for used, told in (("NO", False), ("YES", True)):
        usage = item(ContrastBolusAgentNumber=1, ContrastBolusAgentAdministered=used)
        group = item(ContrastBolusUsageSequence=[usage])
        header.dataset.PerFrameFunctionalGroupsSequence = [group]
        assert contrast_told(acquisition)[0] is told


@pytest.mark.parametrize(("organ", "phase"), [("liver", "enhanced"), ("kidney", "unknown"), ("soft_tissue", "unknown")])
def test_a_ct_without_aorta_is_enhanced_by_tags_only_where_the_organ_is_looked_at_again(acquired, organ, phase):
    acquisition = acquired(ContrastBolusAgent="IOHEXOL", ContrastBolusRoute="IV")
    assert contrast_phase(acquisition, read_volume(acquisition), organ)[0] == phase


def test_oral_contrast_enhances_nothing(acquired):
    acquisition = acquired(ContrastBolusAgent="ORAL")
    for organ in ("liver", "kidney", "bone", "soft_tissue"):
        assert contrast_phase(acquisition, read_volume(acquisition), organ)[0] == "unknown"


@pytest.mark.parametrize(
    ("tags", "phase"),
    [
        ({}, "unknown"),
        ({"ContrastBolusAgent": ""}, "unknown"),
        ({"ContrastBolusAgent": "GADOBUTROL"}, "enhanced"),
        ({"ContrastBolusAgent": "GADOBUTROL", "EchoTime": 80}, "unknown"),
        ({"ContrastBolusAgent": "GADOBUTROL", "EchoTime": 2.4}, "enhanced"),
        ({"ContrastBolusAgent": "NONE", "SeriesDescription": "T1 GD"}, "unenhanced"),
        ({"StudyDescription": "MR LIVER W CONTRAST"}, "unknown"),
        *(
            ({"SeriesDescription": text}, "enhanced")
            for text in (
                "T1 VIBE FS POST GD",
                "t1_fs_Gd",
                "T1 + C",
                "T1 C+",
                "AX T1 POST CONTRAST",
                "t1 KM",
                "THRIVE CE",
            )
        ),
        *(
            ({"SeriesDescription": text}, "unknown")
            for text in (
                "T1 VIBE",
                "T1 POST ABLATION",
                "AX T1 POST",
                "POSTERIOR",
                "eTHRIVE ENHANCED",
                "T2 CONTRAST",
                "CERVIX",
            )
        ),
        *(({"SeriesDescription": text}, "unenhanced") for text in ("T1 PRE GD", "T1 W/O GD", "T1 nativ", "T1 no KM")),
    ],
)
def test_an_mr_needs_evidence_of_contrast(acquired, tags, phase):
    acquisition = acquired("MR", **tags)
    assert contrast_phase(acquisition, read_volume(acquisition), "soft_tissue")[0] == phase


@pytest.mark.parametrize("organ", ["liver", "soft_tissue"])
def test_a_ct_is_not_enhanced_by_its_description(acquired, organ):
    acquisition = acquired(SeriesDescription="ABD POST CONTRAST")
    assert contrast_phase(acquisition, read_volume(acquisition), organ)[0] == "unknown"


@pytest.mark.parametrize("start", [None, "095930"])
def test_the_first_volume_of_a_run_is_not_taken_for_enhanced(kit, tmp_path, start):
    """A dynamic series starts before the contrast comes; all its volumes name the agent."""
    values, images = kit.ramp(20), []
    injected = {"ContrastBolusStartTime": start} if start else {}
    for n, time in enumerate(("100000", "100030", "100100"), 1):
        made = kit.Series(
            values + n,
            modality="MR",
            tags={"ContrastBolusAgent": "GADOBUTROL", "AcquisitionTime": time, "AcquisitionNumber": n, **injected},
        )
        images += [made.image(k, SOPInstanceUID=kit.uid_of(n, k)) for k in range(20)]
    headers = scan([kit.write(images, tmp_path)]).headers
    chosen = choose(headers, Wanted("soft_tissue", headers[0], 30.0, np.array([0, 0, 1.0])))
    assert chosen.phase == "enhanced"
    assert chosen.acquisition.label != "AcquisitionNumber 1"
    told = [line for line in chosen.choice.considered if "unknown" in line]
    assert len(told) == (0 if start else 1)


@pytest.mark.parametrize("part", ["baseline", "followup-1", "followup-2"])
def test_the_mr_of_the_shared_case_proves_contrast_by_its_tags(shared, part):
    (acquisition,) = read_series(scan([shared / "cases" / "dev5" / part]).headers).acquisitions
    header = acquisition.header
    assert (header.text("ContrastBolusAgent"), header.text("SeriesDescription")) == ("GADOBUTROL", "T1 VIBE FS POST GD")
    assert contrast_told(acquisition)[0] is True
