"""Whether the node knows what it does not know: expected errors, intervals, probabilities and refusals, held against
the truth of made patients other than those that the method's numbers were set on.

Good pairs are of a family that differs in everything at once, the plan included. 72 of them lend their plan to two
wrong pairs each: the follow-up of somebody else, under this patient's name, and its own follow-up cut beside the
lesion; pairs of another region are made besides. Expected errors are held against true ones on these and on patients
from easy to hopeless.
--quick: one patient and no stranger.

Also writes docs/images/calibration.png (not with --quick).
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from document import add_rows, goal, options, read_rows, report
from scipy import stats

from pipeline.assess import assess
from pipeline.case import Case
from pipeline.organ_edge import organ_depth_mm, required_here_mm
from pipeline.phantom import Phantom, make_phantom
from pipeline.phantom_families import ANOTHER_REGION, GRADED, VARIED, family
from pipeline.phantom_shape import signed_margins_mm, surface_points
from pipeline.surface import surface_of_mask

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "calibration.png"
#: Other seeds than those that anything was set on (`VARIED` 300 to 349, `GRADED` 400 to 415).
GOOD = [(VARIED, 2000 + n) for n in range(120)]
#: How many of them lend their plan to wrong pairs.
TWICE_WRONG = 72
QUICK = GOOD[16]  # thick slices
FROM_EASY_TO_HARD = [(GRADED, 4000 + n) for n in range(48)]
MISSED, STRANGER = "lesion_missed", "another_patient"
REGIONS = [(ANOTHER_REGION, 3000 + n) for n in range(12)]
REFUSALS = (
    "registration_images_disagree",
    "registration_distorts",
    "registration_uncertain",
    "lesion_outside_followup",
)
#: At up to this slice thickness the median interval must be as narrow as asked for.
THIN_MM = 2.5


def good(phantom: Phantom, name: str, seed: int) -> dict[str, Any]:
    """What was said of a good pair, beside what is so."""
    truth, found = phantom.followups[0].truth, assess(phantom.case())
    margin = found.lesions[0].margin
    row: dict[str, Any] = {
        "pair": "good",
        "family": name,
        "seed": seed,
        "outcome": found.outcome,
        "reason": found.reasons[0].code,
        "refused": any(r.code in REFUSALS for r in found.reasons),
        "slice_mm": float(phantom.followups[0].volume.geometry.spacing_mm.max()),
        "true_margin_mm": truth.minimal_margin_mm,
        "expected_error_mm": found.registration.quality.expected_error_mm,
        "error_mm": None,
    }
    if (transform := found.registration.baseline_from_followup) is not None:
        there = surface_of_mask(phantom.plan.lesions[0].tumor).vertices_lps_mm[::5]
        off = transform.inverse_points(there) - truth.baseline_from_followup.inverse(there)
        row["error_mm"] = float(np.linalg.norm(off, axis=1).mean())
    if margin is None:
        return row
    low, high = margin.minimal_margin_interval_mm
    credited = margin.organ_limited_margin_mm is not None and bool(margin.organ_limited_surface_fraction)
    return {
        **row,
        "margin_mm": margin.minimal_margin_mm,
        "low_mm": low,
        "high_mm": high,
        "held": low <= truth.minimal_margin_mm <= high,
        "below_0": margin.probability_below_0mm,
        "below_required": margin.probability_below_required,
        "true_spare_mm": spare_mm(phantom, limited=credited),
    }


def spare_mm(phantom: Phantom, *, limited: bool) -> float:
    """How much more true margin there is than required where it is scarcest; negative: less. limited: required is no
    more than there is organ beyond the tumor."""
    spec, lesion, organ = phantom.spec, phantom.plan.lesions[0], phantom.plan.organ_mask
    motion, zone = spec.followups[0].motion, spec.followups[0].shape
    tumor, edge = (
        surface_points(shape.depth_mm, blob.center_lps_mm, reach_mm=1.5 * max(blob.radii_mm), count=count)
        for shape, blob, count in ((spec.tumor, spec.tumor, 2_000), (zone, zone.blob, 40_000))
    )
    margins = signed_margins_mm(motion.inverse(tumor), motion.inverse(edge), lambda p: zone.depth_mm(motion(p)))
    required = np.full(len(tumor), lesion.required_margin_mm)
    if limited and organ is not None:
        scan, reach = phantom.plan.baseline.geometry, lesion.required_margin_mm
        depth = organ_depth_mm(organ, [lesion.tumor], tumor, scan=scan, reach_mm=reach)
        required = required_here_mm(depth, lesion.required_margin_mm)
    return float((margins - required).min())


def wrong(plan: Phantom, followup: Phantom, name: str, seed: int) -> dict[str, Any]:
    """What was said of a pair that does not belong together."""
    found = assess(Case(plan.plan, followup.followups[0].followup))
    return {
        "pair": "wrong",
        "family": name,
        "seed": seed,
        "outcome": found.outcome,
        "reason": found.reasons[0].code,
        "refused": any(r.code in REFUSALS for r in found.reasons),
    }


def missed(phantom: Phantom) -> Phantom:
    """The phantom with its follow-up cut 8 mm beside the lesion, on the side where more is left."""
    made = phantom.followups[0]
    volume = made.volume
    slices = volume.geometry.index_of(made.truth.tumor.points_lps_mm())[:, 0]
    by = 8.0 / volume.geometry.spacing_mm[0]
    low, high = int(slices.min() - by), int(slices.max() + by)
    keep = slice(0, max(low, 0)) if low > volume.geometry.shape[0] - high else slice(high, None)
    part = volume.crop((keep, slice(None), slice(None)))
    return replace(phantom, followups=(replace(made, followup=replace(made.followup, volume=part)),))


def stranger(phantom: Phantom) -> Phantom:
    """The phantom with its follow-up taken of somebody else's body, in the same place and of the same size."""
    spec = phantom.spec
    other = replace(spec.followups[0], other_body_seed=10_000 + spec.seed)
    return make_phantom(replace(spec, followups=(other,)))


def as_planned(phantom: Phantom) -> Phantom:
    """The phantom of `VARIED`; every sixth plan comes without a simulated zone, every sixth without an organ mask."""
    plan, kind = phantom.plan, phantom.spec.seed % 6
    if kind == 1:
        plan = replace(plan, lesions=tuple(replace(lesion, simulated_zone=None) for lesion in plan.lesions))
    return replace(phantom, plan=replace(plan, organ_mask=None) if kind == 3 else plan)


@dataclass(frozen=True)
class Job:
    """A patient, and which pairs are wanted: the good one by its family's name, wrong ones by theirs."""

    name: str
    seed: int
    pairs: tuple[str, ...]


def worker(job: Job) -> list[dict[str, Any]]:
    """The rows of one patient."""
    import torch

    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    phantom = make_phantom(family(job.name, job.seed))
    if job.name == VARIED:
        phantom = as_planned(phantom)
    if job.name in job.pairs and job.name != ANOTHER_REGION:
        rows.append(good(phantom, job.name, job.seed))
    if ANOTHER_REGION in job.pairs:
        rows.append(wrong(phantom, phantom, ANOTHER_REGION, job.seed))
    if MISSED in job.pairs:
        rows.append(wrong(phantom, missed(phantom), MISSED, job.seed))
    if STRANGER in job.pairs:
        rows.append(wrong(phantom, stranger(phantom), STRANGER, job.seed))
    return rows


def goals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was asked for."""
    strangers = [r for r in rows if r["pair"] == "wrong"]
    mine = [r for r in rows if r["family"] == VARIED]
    measured = [r for r in mine if "margin_mm" in r]
    thin = [r["high_mm"] - r["low_mm"] for r in measured if r["slice_mm"] <= THIN_MM]
    held = float(np.mean([r["held"] for r in measured])) if measured else None
    return [
        goal("good pairs with an interval", float(len(measured)), ">= 60"),
        *(
            goal(f"expected against true error, rank correlation, {name}", rank(rows, name), ">= 0.7")
            for name in (GRADED, VARIED)
        ),
        goal("intervals that hold the truth", held, ">= 0.9"),
        goal("intervals that hold the truth, not too wide", held, "<= 0.99"),
        goal(f"median width at slices up to {THIN_MM} mm, mm", float(np.median(thin)) if thin else None, "<= 4"),
        goal("wrong pairs refused by the registration", _share(strangers, lambda r: r["refused"]), ">= 0.99"),
        *(
            goal(f"refused by the registration, {name}", _share(of_kind, lambda r: r["refused"]), ">= 0.99")
            for name in (STRANGER, MISSED, ANOTHER_REGION)
            if (of_kind := [r for r in strangers if r["family"] == name])
        ),
        goal("wrong pairs that got an answer", _share(strangers, _answered), "<= 0.01"),
        goal("good pairs refused by the registration", _share(mine, lambda r: r["refused"]), "<= 0.02"),
        goal("good pairs that got an answer", _share(mine, _answered), ">= 0.9"),
    ]


def rank(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    """Spearman's correlation of expected and true registration error over the good pairs of a family, refused ones
    included; None for fewer than three."""
    pairs = _errors(rows, name)
    return float(stats.spearmanr(*zip(*pairs, strict=True))[0]) if len(pairs) > 2 else None


def _errors(rows: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """Expected and true registration error, mm, of a family's good pairs that have both."""
    return [(r["expected_error_mm"], r["error_mm"]) for r in rows if r["family"] == name and r.get("error_mm")]


def _answered(row: dict[str, Any]) -> bool:
    return bool(row["outcome"] != "not_assessable")


def _share(rows: Sequence[dict[str, Any]], so: Callable[[dict[str, Any]], bool]) -> float:
    return float(np.mean([so(row) for row in rows]))


def reliability(rows: Sequence[dict[str, Any]]) -> list[tuple[float, float, int]]:
    """Said probability, observed share and count, in five classes, of all that was said of 0 mm and of the required."""
    said, so = [], []
    for row in rows:
        if row["family"] == VARIED and row.get("below_0") is not None:
            said.append(row["below_0"])
            so.append(row["true_margin_mm"] < 0)
            said.append(row["below_required"])
            so.append(row["true_spare_mm"] < 0)
    classes = np.clip((np.array(said) * 5).astype(int), 0, 4)
    out = []
    for n in range(5):
        here = classes == n
        if here.any():
            out.append((float(np.array(said)[here].mean()), float(np.array(so)[here].mean()), int(here.sum())))
    return out


def draw(rows: Sequence[dict[str, Any]]) -> None:
    """Reliability of the probabilities, intervals against the truth, expected against true error."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    measured = [r for r in rows if r["family"] == VARIED and "margin_mm" in r]
    figure = Figure((12, 4), layout="constrained")
    FigureCanvasAgg(figure)
    first, second, third = figure.subplots(1, 3)
    first.plot([0, 1], [0, 1], color="0.7", lw=1)
    for said, so, count in reliability(measured):
        first.plot(said, so, "o", color="#0b6e99", ms=4 + 2 * np.sqrt(count))
        first.annotate(str(count), (said, so), (6, -12), textcoords="offset points", fontsize=8)
    first.set(xlabel="probability said", ylabel="share that was so", title="Margin below 0 mm or the required one")
    for row in measured:
        color = "#0b6e99" if row["held"] else "#b3261e"
        second.plot([row["true_margin_mm"]] * 2, [row["low_mm"], row["high_mm"]], color=color, lw=1.2)
    ends = [min(r["true_margin_mm"] for r in measured), max(r["true_margin_mm"] for r in measured)]
    second.plot(ends, ends, color="0.5", lw=1)
    second.set(xlabel="true minimal margin, mm", ylabel="95 % interval, mm", title="Intervals (red: truth outside)")
    for name, color in ((VARIED, "#0b6e99"), (GRADED, "#d98200")):
        if pairs := _errors(rows, name):
            third.loglog(*zip(*pairs, strict=True), "o", color=color, ms=4, label=name)
    third.legend(frameon=False)
    third.plot([0.1, 5], [0.1, 5], color="0.7", lw=1)
    for axis in (third.xaxis, third.yaxis):
        axis.set_major_locator(FixedLocator([0.1, 0.2, 0.5, 1.0, 2.0, 5.0]))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_locator(NullLocator())
    third.set(xlabel="expected error, mm", ylabel="true error, mm", title="Registration at the tumor's surface")
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    """Runs the benchmark on as many processes as there are cores."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when a worker starts
    chosen = options(__doc__, rows=True)
    rows = read_rows(chosen.rows)
    known = {(row["family"], row["seed"]) for row in rows}
    jobs = []
    for name, seed in [QUICK] if chosen.quick else [*GOOD, *FROM_EASY_TO_HARD, *REGIONS]:
        pairs = (VARIED, MISSED, STRANGER) if (name, seed) in GOOD[:TWICE_WRONG] else (name,)
        pairs = pairs[:2] if chosen.quick else pairs
        if wanted := tuple(pair for pair in pairs if (pair, seed) not in known):
            jobs.append(Job(name, seed, wanted))
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        for found in pool.imap_unordered(worker, jobs):
            add_rows(chosen.rows, found)
            rows += found
            print(*found, sep="\n", file=sys.stderr, flush=True)
    rows.sort(key=lambda row: (row["pair"], row["family"], row["seed"]))
    if not chosen.quick:
        draw(rows)
    report("calibration", rows, goals(rows), as_json=chosen.json)


if __name__ == "__main__":
    main()
