"""Registration on made patients with exact motion: ours beside itk-elastix and SimpleITK's B-spline.

Every engine gets the same images, the same masks (liver and 10 mm around it; tumor and zone cut out with a rim) and the
same rigid start, which is ours and whose time counts for ours alone. Target error: 300 points of the liver within
20 mm of the zone. --quick: one case, ours only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from document import goal, options, report

from pipeline.bias_field import evened
from pipeline.geometry import FloatArray
from pipeline.itk import image_from
from pipeline.phantom import Phantom, make_phantom
from pipeline.phantom_families import FAMILIES, family
from pipeline.register import COARSE_LEVELS, FINE_LEVELS, Where, deform_in_halves, mean_of
from pipeline.rigid import rigid_start
from pipeline.sampling import box_of, extent_of
from pipeline.transform import Transform, identity, resample_distance
from pipeline.volume import Mask, Volume

SEEDS = (1, 2, 3)
torch.set_num_threads(1)

Map = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two scans, where the cost looks, the rigid start, and points whose partners are known."""

    name: str
    followup: Volume
    baseline: Volume
    where: Where
    start: Transform
    start_s: float
    points: FloatArray
    partners: FloatArray


def pair(phantom: Phantom) -> Pair:
    """The pair of a phantom's first follow-up, with the true lesion cut out."""
    made, plan = phantom.followups[0], phantom.plan
    truth, lesion = made.truth, plan.lesions[0]
    started = time.perf_counter()
    region = box_of(lesion.tumor.points_lps_mm())
    start = rigid_start(made.volume, plan.baseline, region=region)
    start_s = time.perf_counter() - started
    frame = made.volume.geometry.frame_uid
    inner = box_of(truth.zone.points_lps_mm())
    box = inner.grown(60.0).meet(extent_of(made.volume.geometry))
    grid = box.grown(15.0).grid(2.0, frame)
    base = box_of(start(box.corners())).grown(20.0).grid(2.0, plan.baseline.geometry.frame_uid)
    where = Where(
        box=box,
        near=(inner.grown(30.0).meet(extent_of(made.volume.geometry)),),
        organ=None if plan.organ_mask is None else _grown(plan.organ_mask, base, 10.0),
        cut_baseline=_grown(lesion.tumor, base, 2.0),
        cut_followup=_grown(truth.zone | truth.tumor, grid, 3.0),
    )
    points, partners = near_points(phantom)
    return Pair(phantom.spec.name, made.volume, plan.baseline, where, start, start_s, points, partners)


def near_points(phantom: Phantom) -> tuple[FloatArray, FloatArray]:
    """(300, 3) liver points within 20 mm of the zone's edge, zone included, and their partners in the baseline."""
    made = phantom.followups[0]
    zone, organ = made.truth.zone, phantom.plan.organ_mask
    assert organ is not None
    box = box_of(zone.points_lps_mm()).grown(20.0)
    tries = np.random.default_rng(5).uniform(box.low, box.high, (6000, 3))
    there = made.truth.baseline_from_followup(tries)
    inside = resample_at(zone, tries) > -20.0
    inside &= (resample_at(organ, there) > 1.0) & made.volume.geometry.contains(tries)
    return tries[inside][:300], there[inside][:300]


def resample_at(mask: Mask, points: FloatArray) -> FloatArray:
    from pipeline.transform import sample_distance

    return np.asarray(sample_distance(mask, points), np.float64)


def _grown(mask: Mask, grid: Any, by_mm: float) -> Mask:
    return Mask(resample_distance(mask, grid, identity(grid.frame_uid)) > -by_mm, grid)


def ours(work: Pair) -> Map:
    """The product's two stages: coarse, then fine in two halves."""
    halves = (work.start, work.start)
    followup, baseline = evened(work.followup), evened(work.baseline)
    for levels in (COARSE_LEVELS, FINE_LEVELS):
        halves = deform_in_halves(followup, baseline, halves, where=work.where, levels=levels)
    return mean_of(*halves)


def _itk_inputs(work: Pair) -> tuple[sitk.Image, sitk.Image, sitk.Image, sitk.Image]:
    """Fixed and moving image and mask; the moving ones lie where the rigid start puts them."""
    back = np.linalg.inv(work.start.matrix)
    fixed, moving = image_from(work.followup), image_from(work.baseline)
    fixed_mask = _mask_like(fixed, work.where, work.start, followup=True)
    moving_mask = _mask_like(moving, work.where, work.start, followup=False)
    for image in (moving, moving_mask):
        turn = back[:3, :3] @ np.array(image.GetDirection()).reshape(3, 3)
        image.SetOrigin((back[:3, :3] @ np.array(image.GetOrigin()) + back[:3, 3]).tolist())
        image.SetDirection(turn.ravel().tolist())
    return fixed, moving, fixed_mask, moving_mask


def _mask_like(image: sitk.Image, where: Where, start: Transform, *, followup: bool) -> sitk.Image:
    organ, tumor, zone = (image_from(m) for m in (where.organ, where.cut_baseline, where.cut_followup) if m is not None)
    to_baseline, from_baseline = sitk.AffineTransform(3), sitk.AffineTransform(3)
    for transform, matrix in ((to_baseline, start.matrix), (from_baseline, np.linalg.inv(start.matrix))):
        transform.SetMatrix(matrix[:3, :3].ravel().tolist())
        transform.SetTranslation(matrix[:3, 3].tolist())
    same = sitk.Transform(3, sitk.sitkIdentity)
    of_baseline, of_followup = (to_baseline, same) if followup else (same, from_baseline)
    out = sitk.Resample(organ, image, of_baseline, sitk.sitkNearestNeighbor)
    out = out * (1 - sitk.Resample(tumor, image, of_baseline, sitk.sitkNearestNeighbor))
    if followup:
        out = out * (1 - sitk.Resample(zone, image, of_followup, sitk.sitkNearestNeighbor))
    return sitk.Cast(out, sitk.sitkUInt8)


def _mapped(work: Pair, points_in_start_frame: FloatArray) -> FloatArray:
    """The peers map to the moved baseline; the rigid start leads on to the baseline itself."""
    return np.asarray(points_in_start_frame @ work.start.matrix[:3, :3].T + work.start.matrix[:3, 3])


def elastix(work: Pair) -> Map:
    """itk-elastix with its own default rigid and B-spline parameter maps."""
    import itk

    fixed, moving, fixed_mask, moving_mask = _itk_inputs(work)
    parameters = itk.ParameterObject.New()
    for kind in ("rigid", "bspline"):
        chosen = parameters.GetDefaultParameterMap(kind)
        chosen["ErodeMask"] = ["false"]
        parameters.AddParameterMap(chosen)
    images = [_to_itk(x) for x in (fixed, moving, fixed_mask, moving_mask)]
    _, found = itk.elastix_registration_method(
        images[0],
        images[1],
        fixed_mask=images[2],
        moving_mask=images[3],
        parameter_object=parameters,
        log_to_console=False,
    )

    def mapped(points: FloatArray) -> FloatArray:
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as name:
            listed = Path(name) / "points.txt"
            lines = [" ".join(f"{x:.6f}" for x in p) for p in points]
            listed.write_text("\n".join(["point", str(len(points)), *lines]))
            mover = itk.TransformixFilter.New(_to_itk(moving))
            mover.SetTransformParameterObject(found)
            mover.SetFixedPointSetFileName(str(listed))
            mover.SetOutputDirectory(name)
            mover.Update()
            text = (Path(name) / "outputpoints.txt").read_text().splitlines()
        out = [[float(x) for x in line.split("OutputPoint = [")[1].split("]")[0].split()] for line in text]
        return _mapped(work, np.array(out))

    return mapped


def _to_itk(image: sitk.Image) -> Any:
    import itk

    array = sitk.GetArrayFromImage(image)
    out = itk.image_from_array(np.ascontiguousarray(array))
    out.SetOrigin(image.GetOrigin())
    out.SetSpacing(image.GetSpacing())
    out.SetDirection(itk.matrix_from_array(np.array(image.GetDirection()).reshape(3, 3)))
    return out


def simpleitk(work: Pair) -> Map:
    """SimpleITK's B-spline registration in its usual form: Mattes information, L-BFGS-B, three resolutions."""
    fixed, moving, fixed_mask, moving_mask = _itk_inputs(work)
    spans = [n * s for n, s in zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)]
    start = sitk.BSplineTransformInitializer(fixed, [max(1, round(span / 60.0)) for span in spans])
    engine = sitk.ImageRegistrationMethod()
    engine.SetMetricAsMattesMutualInformation(50)
    engine.SetMetricSamplingStrategy(engine.RANDOM)
    engine.SetMetricSamplingPercentage(0.02, 1)
    engine.SetMetricFixedMask(fixed_mask)
    engine.SetMetricMovingMask(moving_mask)
    engine.SetInterpolator(sitk.sitkLinear)
    engine.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-5, numberOfIterations=60)
    engine.SetInitialTransformAsBSpline(start, inPlace=True, scaleFactors=[1, 2, 4])
    engine.SetShrinkFactorsPerLevel([4, 2, 1])
    engine.SetSmoothingSigmasPerLevel([2, 1, 0])
    found = engine.Execute(sitk.Cast(fixed, sitk.sitkFloat32), sitk.Cast(moving, sitk.sitkFloat32))
    return lambda points: _mapped(work, np.array([found.TransformPoint(p.tolist()) for p in points]))


ENGINES: dict[str, Callable[[Pair], Map]] = {"ours": ours, "itk-elastix": elastix, "SimpleITK B-spline": simpleitk}


def row(engine: str, work: Pair, seed: int) -> dict[str, Any]:
    """Errors and time of one engine on one pair."""
    started = time.perf_counter()
    try:
        found = ENGINES[engine](work)
    except RuntimeError as problem:
        return {"engine": engine, "family": work.name, "seed": seed, "failed": str(problem).splitlines()[0]}
    seconds = time.perf_counter() - started + (work.start_s if engine == "ours" else 0.0)
    errors = np.linalg.norm(found(work.points) - work.partners, axis=1)
    out = {
        "engine": engine,
        "family": work.name,
        "seed": seed,
        "tre_mean_mm": float(errors.mean()),
        "tre_p95_mm": float(np.percentile(errors, 95)),
        "wall_s": seconds,
    }
    if isinstance(found, Transform):
        out["least_jacobian"] = float(found.jacobian_determinants(work.points).min())
    return out


def main() -> None:
    """Runs the benchmark."""
    chosen = options(__doc__)
    engines = ["ours"] if chosen.quick else list(ENGINES)
    rows = []
    for name in FAMILIES[:1] if chosen.quick else FAMILIES:
        for seed in SEEDS[:1] if chosen.quick else SEEDS:
            work = pair(make_phantom(family(name, seed)))
            rows += [row(engine, work, seed) for engine in engines]
    report("registration", rows, goals(rows), as_json=chosen.json)


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was asked for, over all rows."""
    mine = [r for r in rows if r["engine"] == "ours"]
    out = [
        goal("median of the mean target errors, mm", float(np.median([r["tre_mean_mm"] for r in mine])), "<= 0.8"),
        goal("median of the 95th percentiles, mm", float(np.median([r["tre_p95_mm"] for r in mine])), "<= 1.8"),
        goal("worst mean target error, mm", max(r["tre_mean_mm"] for r in mine), "<= 3"),
        goal("least Jacobian of all", min(r["least_jacobian"] for r in mine), ">= 0.01"),
    ]
    return out


if __name__ == "__main__":
    main()
