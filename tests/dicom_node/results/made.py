"""Made follow-ups for the tests of the results: a small CT or MR series with a tumor and a zone of known shape."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, MRImageStorage

from dicom_node.study import SeriesChoice, StudyCase
from pipeline.assessment import (
    Assessment,
    Finding,
    LesionAssessment,
    Margin,
    Reason,
    Registration,
    RegistrationQuality,
    ScarcePlace,
    SimulatedZoneComparison,
    SurfaceError,
)
from pipeline.case import Case, FollowUp, Lesion, Outcome, Plan
from pipeline.geometry import Geometry
from pipeline.location import Location
from pipeline.transform import SplineField, Transform
from pipeline.volume import Mask, Volume

FOLLOWUP, BASELINE = "1.2.826.0.1.3680043.8.498.11", "1.2.826.0.1.3680043.8.498.12"
STUDY, SERIES = "1.2.826.0.1.3680043.8.498.21", "1.2.826.0.1.3680043.8.498.22"


def geometry(shape: tuple[int, int, int] = (24, 96, 96), *, rotate_deg: float = 0.0, flip: bool = False) -> Geometry:
    """A grid of 1 mm pixels and 2.5 mm slices around the origin, turned about the body's long axis if wanted."""
    angle = np.deg2rad(rotate_deg)
    row = np.array([np.cos(angle), np.sin(angle), 0.0])
    column = np.array([-np.sin(angle), np.cos(angle), 0.0])
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([np.array([0, 0, -2.5 if flip else 2.5]), column, row], axis=1)
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(shape) - 1) / 2) + np.array([-80.0, -20.0, -120.0])
    return Geometry(shape, matrix, FOLLOWUP)


def ball(grid: Geometry, center_lps_mm: Any, radius_mm: float) -> Mask:
    """A sphere as a mask."""
    return Mask(np.linalg.norm(grid.grid_lps() - np.asarray(center_lps_mm), axis=-1) <= radius_mm, grid)


def headers(grid: Geometry, modality: str = "CT") -> tuple[Dataset, ...]:
    """One header a slice, as a scanner would write it, without pixel data."""
    found = []
    for k in range(grid.shape[0]):
        ds = _common(modality)
        ds.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        ds.SOPInstanceUID = f"{SERIES}.{k + 1}"
        ds.InstanceNumber = str(grid.shape[0] - k)
        ds.Rows, ds.Columns = grid.shape[1:]
        ds.ImagePositionPatient = [round(float(x), 6) for x in grid.lps_of((k, 0, 0))]
        ds.ImageOrientationPatient = _orientation(grid)
        ds.PixelSpacing = [float(x) for x in grid.spacing_mm[1:]]
        ds.SliceThickness = "2.5"
        found.append(ds)
    return tuple(found)


def enhanced_header(grid: Geometry) -> tuple[Dataset]:
    """The header of one Enhanced CT object with a frame a slice."""
    ds = _common("CT")
    ds.SOPClassUID, ds.SOPInstanceUID = EnhancedCTImageStorage, f"{SERIES}.1"
    ds.Rows, ds.Columns = grid.shape[1:]
    ds.NumberOfFrames = grid.shape[0]
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = _orientation(grid)
    measures.PixelSpacing, measures.SliceThickness = [float(x) for x in grid.spacing_mm[1:]], "2.5"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in range(grid.shape[0]):
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [round(float(x), 6) for x in grid.lps_of((k, 0, 0))]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    return (ds,)


def _orientation(grid: Geometry) -> list[float]:
    axes = grid.lps_from_index[:3, :3] / grid.spacing_mm
    return [round(float(x), 8) for x in (*axes[:, 2], *axes[:, 1])]


def _common(modality: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName, ds.PatientID = "Müller^Anna", "MADE-1"
    ds.PatientBirthDate, ds.PatientSex = "19600101", "F"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = STUDY, SERIES, FOLLOWUP
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260214", "093000", "1", "A1"
    ds.StudyDescription = f"{modality} abdomen with contrast"
    ds.ReferringPhysicianName = ""
    ds.SeriesDate, ds.SeriesTime, ds.SeriesNumber = "20260214", "093100", "4"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = modality, "SIEMENS", "Made"
    ds.BodyPartExamined, ds.PatientPosition, ds.PositionReferenceIndicator = "ABDOMEN", "HFS", ""
    return ds


def image(grid: Geometry, zones: list[Mask], modality: str = "CT") -> Volume:
    """Bright tissue with darker zones and some noise."""
    voxels = np.random.default_rng(1).normal(110, 8, grid.shape)
    for zone in zones:
        voxels[zone.voxels] -= 70
    return Volume(voxels.astype(np.int16), grid, "ct_hu" if modality == "CT" else "mr_signal")


def transform() -> Transform:
    """A small rotation, a shift and a smooth displacement."""
    spacing = np.diag([40.0, 40.0, 40.0, 1.0])
    spacing = spacing[:, [2, 1, 0, 3]]
    spacing[:3, 3] = (-180, -120, -220)
    grid = Geometry((6, 6, 6), spacing, FOLLOWUP)
    field = np.random.default_rng(2).normal(0, 2, (3, 6, 6, 6))
    angle = np.deg2rad(3)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = (2, -3, 11)
    return Transform(BASELINE, FOLLOWUP, matrix, SplineField(field, grid))


def lesion(grid: Geometry, name: str, center: Any, outcome: Outcome = "complete") -> LesionAssessment:
    """One lesion: complete, incomplete (the zone moved off by 8 mm) or anything else with the numbers of complete."""
    center = np.asarray(center, float)
    tumor = ball(grid, center, 8.0)
    off = np.array([8.0, 0, 0]) if outcome == "incomplete_coverage" else np.zeros(3)
    zone = ball(grid, center + off, 14.0)
    uncovered = tumor - zone
    margin = 6.0 - float(np.linalg.norm(off))
    there = Location(("medial", "cranial"), 12.0)
    found = (
        (Finding("residual_tumor", _point(center - (7, 0, 0)), uncovered.volume_ml, 9.5),)
        if outcome in ("incomplete_coverage", "local_progression")
        else ()
    )
    return LesionAssessment(
        name,
        outcome,
        5.0,
        (Reason(outcome, f"Lesion {name}: made for a test."),),
        Margin(
            margin,
            (margin - 1.2, margin + 1.1),
            _point(center - (8, 0, 0)),
            tumor.volume_ml,
            zone.volume_ml,
            1.0 - uncovered.volume_ml / tumor.volume_ml,
            uncovered.volume_ml,
            0.12 if off.any() else 0.0,
            0.4 if off.any() else 0.0,
            organ_limited_margin_mm=margin,
            organ_limited_surface_fraction=0.2,
            scarcest=ScarcePlace(_point(center - (8, 0, 0)), margin, 5.0, there),
            location=there,
            probability_below_0mm=0.9 if margin < 0 else 0.03,
            probability_below_required=0.95 if margin < 5 else 0.2,
        ),
        SimulatedZoneComparison(12.0, 0.91, 6.4),
        found,
        zone,
        tumor,
        uncovered,
        SurfaceError(center + 8.0 * np.eye(3), np.array([0.6, 0.8, 1.0]), 0.7),
        0.4,
    )


def _point(xyz: Any) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in xyz)
    return x, y, z


def blank_lesion(name: str) -> LesionAssessment:
    """A lesion that could not be assessed."""
    return LesionAssessment(name, "not_assessable", 5.0, (Reason("zone_not_found", "No ablation zone was found."),))


def case(grid: Geometry, lesions: tuple[LesionAssessment, ...], modality: str = "CT", organ: Any = "liver") -> Case:
    """The case that led to those lesions."""
    base = Geometry((8, 16, 16), np.diag([5.0, 5.0, 5.0, 1.0]), BASELINE)
    tumor = ball(base, (35.0, 35.0, 20.0), 8.0)
    plan = Plan(
        "MADE-1-plan",
        organ,
        "cryoablation",
        datetime.date(2026, 1, 12),
        Volume(np.zeros(base.shape, np.int16), base, "ct_hu"),
        tuple(Lesion(item.lesion_id, 5.0, tumor) for item in lesions),
    )
    zones = [item.zone for item in lesions if item.zone is not None]
    acquired = datetime.date(2026, 2, 14)
    return Case(plan, FollowUp(acquired, image(grid, zones, modality), "portal_venous"))


def study(grid: Geometry, lesions: tuple[LesionAssessment, ...], modality: str = "CT", **changes: Any) -> StudyCase:
    """The decoded study of those lesions; `changes` replace fields of it."""
    made = StudyCase(
        case(grid, lesions, modality, changes.pop("organ", "liver")),
        "MADE-1",
        STUDY,
        SERIES,
        "1.2.826.0.1.3680043.8.498.31",
        "1.2.826.0.1.3680043.8.498.32",
        SeriesChoice(SERIES, "LIVER PV", "portal_venous", "The aorta and the liver are enhanced alike.", ("none",)),
        headers(grid, modality),
        notes=(Reason("duplicate_slices", "Two slices came twice and were taken once."),),
    )
    return replace(made, **changes)


def assessment(lesions: tuple[LesionAssessment, ...], outcome: Outcome, *, accepted: bool = True) -> Assessment:
    """The assessment with those lesions."""
    return Assessment(
        outcome,
        outcome != "complete",
        tuple(reason for item in lesions for reason in item.reasons),
        33,
        Registration(
            transform() if accepted else None,
            RegistrationQuality(accepted, 1.1 if accepted else None, 0.6 if accepted else None),
        ),
        lesions,
        {"register": 15.0, "segment": 1.0},
    )


def two(grid: Geometry, outcome: Outcome = "incomplete_coverage") -> tuple[LesionAssessment, ...]:
    """Two lesions apart from each other."""
    return (lesion(grid, "L1", (-88, -20, -120), outcome), lesion(grid, "L2", (-62, -8, -116)))


def scene(kind: str) -> tuple[Assessment, StudyCase]:
    """An assessment and its study of one kind."""
    modality = "MR" if kind.startswith("mr") else "CT"
    grid = geometry(rotate_deg=8 if modality == "MR" else 0, flip="flipped" in kind)
    organ = {"mr": "soft_tissue", "lung": "lung", "kidney": "kidney"}.get(kind.split("_")[0], "liver")
    if "blank" in kind:
        lesions = (blank_lesion("L1"),)
        return assessment(lesions, "not_assessable", accepted=False), study(grid, lesions, modality, organ=organ)
    outcome: Outcome = "complete" if "_complete" in kind else "incomplete_coverage"
    lesions = two(grid, outcome) if "two" in kind else two(grid, outcome)[:1]
    return assessment(lesions, outcome), study(grid, lesions, modality, organ=organ)
