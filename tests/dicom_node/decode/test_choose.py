"""Which series is assessed: by what the images are."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_node.decode.choose import Wanted, choose, contrast_phase
from dicom_node.decode.dates import seconds_after_injection
from dicom_node.decode.files import read_header, scan
from dicom_node.decode.series import read_series, read_volume
from dicom_node.refusal import Refused
from pipeline.volume import Volume


def wanted(headers, **changes):
    given = {"organ": "liver", "like": headers[0], "extent_mm": 30.0, "normal_lps": np.array([0, 0, 1.0]), **changes}
    return Wanted(**given)


def test_the_portal_venous_series_though_both_are_called_arterial(shared):
    headers = scan([shared / "real" / "hcc015"]).headers
    chosen = choose(headers, wanted(headers))
    assert chosen.acquisition.header.text("SeriesNumber") == "103"
    assert chosen.phase == chosen.choice.phase == "portal_venous"
    assert "aorta" in chosen.choice.reason
    assert chosen.volume.voxels.shape == (62, 512, 512)
    assert any("Series 4" in line and "arterial" in line for line in chosen.choice.considered)


def test_the_portal_venous_acquisition_within_one_series(shared):
    headers = scan([shared / "real" / "hcc002_two_phases_in_one_series"]).headers
    chosen = choose(headers, wanted(headers))
    assert chosen.acquisition.label == "AcquisitionNumber 2"
    assert chosen.phase == "portal_venous"
    assert {frame.header.text("AcquisitionNumber") for frame in chosen.acquisition.frames} == {"2"}


@pytest.fixture
def study(kit, tmp_path):
    """Writes made series into one study; the texture tells them apart and serves as noise."""

    def writer(**series):
        for name, given in series.items():
            noise, tags = given.pop("noise", 8), given.pop("tags", {})
            shape = given.pop("shape", (20, 16, 16))
            values = np.random.default_rng(1).normal(60, noise, shape).astype(np.int16)
            made = kit.Series(values, name=name, tags={"SeriesDescription": name, **tags}, **given)
            kit.write(made.images(), tmp_path / name)
        return scan([tmp_path]).headers

    return writer


AGENT = {"ContrastBolusAgent": "IOHEXOL"}


def test_enhanced_before_unknown_before_unenhanced(study):
    headers = study(native={"tags": {"ContrastBolusAgent": "NONE"}}, plain={}, contrast={"tags": AGENT})
    chosen = choose(headers, wanted(headers))
    assert (chosen.choice.series_description, chosen.phase) == ("contrast", "enhanced")
    assert len(chosen.choice.considered) == 2


def test_only_an_unenhanced_one(study):
    headers = study(native={"tags": {"ContrastBolusAgent": "NONE"}})
    assert choose(headers, wanted(headers)).phase == "unenhanced"


def test_thin_slices_unless_the_kernel_is_sharp(study):
    thin = {"shape": (40, 16, 16), "step_mm": (0, 0, 1.0), "tags": AGENT}
    headers = study(
        thick={"tags": AGENT}, thin={**thin, "noise": 12}, sharp={**thin, "noise": 60, "step_mm": (0, 0, 0.9)}
    )
    assert choose(headers, wanted(headers)).choice.series_description == "thin"


def test_a_series_that_covers_too_little(study):
    headers = study(whole={"step_mm": (0, 0, 4.0), "tags": AGENT}, part={"shape": (8, 16, 16), "tags": AGENT})
    chosen = choose(headers, wanted(headers))
    assert chosen.choice.series_description == "whole"
    assert any("part" in line and "covers 16 mm only; the lesion," in line for line in chosen.choice.considered)


@pytest.mark.parametrize("slices", [2, 3])
def test_two_slices_are_too_few_however_thick(study, slices):
    headers = study(thick={"shape": (slices, 16, 16), "step_mm": (0, 0, 20.0), "tags": AGENT})
    if slices == 3:
        assert choose(headers, wanted(headers)).volume.voxels.shape[0] == 3
        return
    with pytest.raises(Refused) as refused:
        choose(headers, wanted(headers))
    assert refused.value.code == "too_few_slices"
    assert "2 slices only" in refused.value.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tags": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}}, "LOCALIZER"),
        ({"tags": {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MIP"]}}, "MIP"),
        ({"tags": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}}, "secondary"),
        ({"axes": (1, 0, 0, 0, 0, -1), "step_mm": (0, 2.0, 0)}, "not axial"),
        ({"modality": "MR"}, "is MR, the baseline is CT"),
    ],
)
def test_what_is_no_candidate(study, changes, said):
    headers = study(good={"tags": AGENT}, other={"step_mm": (0, 0, 1.0), **changes})
    good = [header for header in headers if header.text("SeriesDescription") == "good"]
    chosen = choose(headers, wanted(good))
    assert chosen.choice.series_description == "good"
    assert len(chosen.choice.considered) == 1
    assert said in chosen.choice.considered[0]
    with pytest.raises(Refused) as refused:
        choose([header for header in headers if header not in good], wanted(good))
    assert refused.value.code == "no_usable_series"
    assert said in refused.value.text


def test_mr_like_the_baseline(study):
    mr = {"modality": "MR", "tags": {"ContrastBolusAgent": "GADOBUTROL", "EchoTime": 2.4, "RepetitionTime": 5}}
    t2 = {"modality": "MR", "step_mm": (0, 0, 1.5), "tags": {"ContrastBolusAgent": "GADOBUTROL", "EchoTime": 80}}
    before = {"modality": "MR", "step_mm": (0, 0, 1.5), "tags": {"ContrastBolusAgent": "", "EchoTime": 2.4}}
    headers = study(t1=mr, t2=t2, native=before)
    like = next(header for header in headers if header.text("SeriesDescription") == "t1")
    chosen = choose(headers, wanted([like], organ="soft_tissue"))
    assert (chosen.choice.series_description, chosen.phase) == ("t1", "enhanced")
    assert any("native" in line and "unenhanced" in line for line in chosen.choice.considered)


@pytest.mark.parametrize(
    ("start", "acquired", "seconds"),
    [
        ("100000", "100110", 70.0),
        ("100000.5", "100030.25", 30.0),
        ("100000", "093000", None),
        ("100000", "101500", None),
        ("", "101500", None),
        ("ten", "101500", None),
    ],
)
def test_implausible_injection_times_are_not_trusted(kit, tmp_path, start, acquired, seconds):
    image = kit.Series(kit.ramp()).image(0, AcquisitionTime=acquired)
    path = kit.save(image, tmp_path / "a")
    header = read_header(path)
    header.dataset.add_new("ContrastBolusStartTime", "LO", start)
    assert seconds_after_injection(header) == seconds


@pytest.mark.parametrize("acquired", ["100030", "100110", "100500"])
def test_tags_alone_prove_no_more_than_that_contrast_was_given(study, acquired):
    """Agent and times may be copied from another series; `enhanced` is looked at again around the lesion."""
    times = {"ContrastBolusStartTime": "100000", "AcquisitionTime": acquired}
    for name, tags, phase in (("both", {**AGENT, **times}, "enhanced"), ("times", times, "unknown")):
        headers = [header for header in study(**{name: {"tags": tags}}) if header.text("SeriesDescription") == name]
        (acquisition,) = read_series(headers).acquisitions
        assert contrast_phase(acquisition, read_volume(acquisition), "liver")[0] == phase


def test_injection_times_choose_among_enhanced_series(study):
    headers = study(
        **{
            name: {"tags": {**AGENT, "ContrastBolusStartTime": "100000", "AcquisitionTime": acquired}}
            for name, acquired in (("early", "100030"), ("venous", "100110"), ("late", "100500"))
        }
    )
    chosen = choose(headers, wanted(headers))
    assert (chosen.choice.series_description, chosen.phase) == ("venous", "enhanced")


def test_an_unenhanced_liver_without_aorta_is_not_called_portal_venous_by_its_tags(shared):
    """A real scan cropped to the liver, made as dark as without contrast, with the tags of the venous series."""
    headers = scan([shared / "cases" / "dev1" / "baseline"]).headers
    (acquisition,) = read_series(headers).acquisitions
    for frame in acquisition.frames:
        frame.header.dataset.ContrastBolusStartTime, frame.header.dataset.AcquisitionTime = "100000", "100110"
    volume = read_volume(acquisition)
    part = volume.crop((slice(None), slice(100, 260), slice(60, 190)))
    dark = Volume(np.where(part.voxels > 52, 52, part.voxels), part.geometry, "ct_hu")
    assert contrast_phase(acquisition, dark, "liver")[0] == "enhanced"
