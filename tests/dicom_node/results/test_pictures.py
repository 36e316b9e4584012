"""The planes behind the pictures, and the texts on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dicom_node.results.focus import focus_of
from dicom_node.results.legend import headline_number, registration_sentence, sentence
from dicom_node.results.planes import planes_of
from pipeline.assessment import Finding, Reason


def area_mm2(plane, region):
    signed = plane.signed_mm[region]
    return (signed > 0).sum() * (plane.side_mm / signed.shape[0]) ** 2


@pytest.mark.parametrize("rotate", [0, 25])
@pytest.mark.parametrize("flip", [False, True])
def test_outlines_have_the_true_size_and_place(made, rotate, flip):
    grid = made.geometry(rotate_deg=rotate, flip=flip)
    lesion = made.lesion(grid, "L1", (-80, -20, -120), "incomplete_coverage")
    study = made.study(grid, (lesion,))
    for plane in planes_of(lesion, study.case.followup, "liver"):
        x, y = plane.marked_mm
        pixels = plane.signed_mm["tumor"].shape[0]
        row, column = int(y / plane.side_mm * pixels), int(x / plane.side_mm * pixels)
        assert plane.signed_mm["tumor"][row, column] == pytest.approx(0, abs=1.5)
        if plane.name != "sagittal":
            assert area_mm2(plane, "tumor") == pytest.approx(np.pi * 8**2, rel=0.07)
            assert area_mm2(plane, "zone") == pytest.approx(np.pi * 14**2, rel=0.03)
    axial, coronal, sagittal = planes_of(lesion, study.case.followup, "liver")
    assert (axial.letters, coronal.letters, sagittal.letters) == ("RLAP", "RLHF", "APHF")
    # the zone lies to the patient's left of the tumor, which is to the right in the picture
    for plane in (axial, coronal):
        right = [np.argwhere(plane.signed_mm[region] > 0)[:, 1].mean() for region in ("tumor", "zone")]
        assert right[1] > right[0] + 5


def test_bright_tissue_moves_the_window(made):
    grid = made.geometry()
    lesion = made.lesion(grid, "L1", (-80, -20, -120))
    study = made.study(grid, (lesion,))
    usual = planes_of(lesion, study.case.followup, "liver")[0]
    volume = study.case.followup.volume
    enhanced = replace(volume, voxels=(volume.voxels + 110).astype(np.int16))
    bright = planes_of(lesion, replace(study.case.followup, volume=enhanced), "liver")[0]
    assert usual.window == "W 300  L 30"
    assert bright.window != usual.window
    assert bright.gray[2, 2] < 250


def test_without_any_region_the_middle_is_shown(made):
    grid = made.geometry()
    lesion = made.blank_lesion("L1")
    planes = planes_of(lesion, made.study(grid, (lesion,)).case.followup, "liver")
    assert [plane.marked_mm for plane in planes] == [None, None, None]
    assert planes[0].side_mm == 96


def test_picture_draws_uncovered_tumor_in_red(written):
    out = written("ct_incomplete")
    pixels = np.asarray(Image.open(out / "images" / "lesion-1-axial.png")).astype(int)
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 130) & (pixels[..., 2] < 130)
    assert red[60:890].sum() > 500


def test_a_progression_is_shown_where_it_is(made):
    grid = made.geometry()
    lesion = made.lesion(grid, "L1", (-80, -20, -120), "local_progression")
    nodule = Finding("new_enhancement", (-64.0, -25.0, -118.0), 1.4, 14.0)
    lesion = replace(lesion, findings=(nodule, replace(lesion.findings[0], volume_ml=0.1)))
    focus = focus_of(lesion)
    assert focus.point_lps_mm == nodule.centroid_lps_mm
    assert focus.label == "New enhancement\n1.4 ml"
    axial = planes_of(lesion, made.study(grid, (lesion,)).case.followup, "liver")[0]
    assert axial.place == "z −118.0 mm"
    assert focus_of(replace(lesion, outcome="complete")).label == "6.0 mm"
    uncovered = replace(lesion, outcome="incomplete_coverage", margin=replace(lesion.margin, minimal_margin_mm=-1.0))
    assert focus_of(uncovered).label == "−1.0 mm"
    assert focus_of(made.blank_lesion("L1")) is None


def test_a_narrow_margin_is_shown_where_most_of_it_is_missing(made):
    """But not where the verdict is that of an earlier follow-up: nothing is missing then."""
    lesion = made.lesion(made.geometry(), "L1", (-80, -20, -120), "narrow_margin")
    place = replace(lesion.margin.scarcest, point_lps_mm=(-72.0, -20.0, -120.0), margin_mm=7.5, required_mm=9.0)
    lesion = replace(lesion, margin=replace(lesion.margin, scarcest=place))
    judged = replace(lesion, reasons=(Reason("margin_below_required", "The tumor is covered, but"),))
    assert (focus_of(judged).point_lps_mm, focus_of(judged).label) == (place.point_lps_mm, "7.5 mm")
    kept = replace(lesion, reasons=(Reason("unchanged_since_clean_followup", "No new enhancement"),))
    assert (focus_of(kept).point_lps_mm, focus_of(kept).label) == (lesion.margin.minimal_margin_point_lps_mm, "6.0 mm")


def test_sentences(made):
    grid = made.geometry()
    lesions = (made.lesion(grid, "L1", (-80, -20, -120), "incomplete_coverage"),)
    assessment = made.assessment(lesions, "incomplete_coverage")
    assert sentence(assessment) == (
        "Tumor not completely covered, 33 days after ablation. Minimal margin −2.0 mm (95 % interval −3.2 to −0.9 mm)."
    )
    blank = made.assessment((made.blank_lesion("L1"),), "not_assessable", accepted=False)
    assert headline_number(blank) == "No margin could be measured"
    assert "not accepted" in registration_sentence(blank.registration.quality)
