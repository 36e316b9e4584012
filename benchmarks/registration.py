"""Registration on made patients with exact motion: ours beside itk-elastix and SimpleITK's B-spline.

Every engine gets the same images (cut to the gray values of soft tissue, MR freed of its shading), the same masks
(liver and 10 mm around it within 60 mm of the zone; tumor and zone cut out with a rim) and the same rigid start, which
is ours and whose time, with that of the shading, counts for ours alone. Target error: 300 points of the liver within
20 mm of the zone. Inverse consistency: how far from where it began a point ends that is mapped to the baseline, and
back by a second registration with the scans swapped and a rigid start of its own. `mr_like` pairs a CT baseline with an
MR-like follow-up, which `marginwatch assess` refuses as yet.
--quick: one case, ours only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from document import add_rows, goal, options, read_rows, report
from registration_pairs import Map, Pair, pair, swapped
from registration_peers import elastix, simpleitk

from pipeline.both_ways import both_ways_from, deform_both_ways
from pipeline.contraction import contraction_mm
from pipeline.phantom import make_phantom
from pipeline.phantom_families import FAMILIES, VARIED, family
from pipeline.register import COARSE_LEVELS, FINE_LEVELS
from pipeline.transform import Transform

SEEDS = (1, 2, 3)
FULL_SIZE = "same_phase, 512x512x120"
OURS = "ours"
QUICK = (VARIED, 2016, False)  # thick slices and a small field of view
JACOBIAN_STEP_MM, BEYOND_MM = 4.0, 30.0


def ours(work: Pair) -> Transform:
    """The product's two stages, coarse and fine, each both ways."""
    ways = both_ways_from(work.start)
    for levels, where in ((COARSE_LEVELS, replace(work.where, zones=())), (FINE_LEVELS, work.where)):
        ways = deform_both_ways(work.followup, work.baseline, ways, where=where, levels=levels)
    return ways.joined


PEERS: dict[str, Callable[[Pair], Map]] = {"itk-elastix": elastix, "SimpleITK B-spline": simpleitk}


def row(engine: str, work: Pair, seed: int) -> dict[str, Any]:
    """Errors and time of one engine on one pair."""
    started = time.perf_counter()
    try:
        found = ours(work) if engine == OURS else PEERS[engine](work)
    except RuntimeError as problem:
        return {"engine": engine, "family": work.name, "seed": seed, "failed": str(problem).splitlines()[-1]}
    seconds = time.perf_counter() - started + (work.start_s if engine == OURS else 0.0)
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
        lattice = work.where.box.grown(BEYOND_MM).grid(JACOBIAN_STEP_MM, work.start.from_frame_uid).grid_lps()
        out["least_jacobian"] = float(found.jacobian_determinants(lattice).min())
        out["contraction_mm"] = contraction_mm(found, work.zone)
        out["true_contraction_mm"] = work.contraction_mm
        there_and_back = ours(swapped(work))(found(work.points)) - work.points
        apart = np.linalg.norm(there_and_back, axis=1)
        out["inverse_consistency_mm"] = float(apart.mean())
        out["inverse_consistency_p95_mm"] = float(np.percentile(apart, 95))
    return out


def main() -> None:
    """Runs the benchmark."""
    torch.set_num_threads(1)  # the two ways run side by side
    chosen = options(__doc__, rows=True)
    cases = [(name, seed, False) for name in FAMILIES for seed in SEEDS] + [("same_phase", SEEDS[0], True)]
    rows = read_rows(chosen.rows)
    known = {(row["engine"], row["family"], row["seed"]) for row in rows}
    for name, seed, full in [QUICK] if chosen.quick else cases:
        label = FULL_SIZE if full else name
        engines = [OURS] if chosen.quick else [OURS, *PEERS]
        engines = [engine for engine in engines if (engine, label, seed) not in known]
        if engines:
            work = pair(make_phantom(family(name, seed, full=full)), name=label)
        for engine in engines:
            rows.append(row(engine, work, seed))
            add_rows(chosen.rows, rows[-1:])
            print(rows[-1], file=sys.stderr, flush=True)
    report("registration", rows, goals(rows), as_json=chosen.json)


def goals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was asked for, over all rows, then family by family."""
    mine = [r for r in rows if r["engine"] == OURS]
    out = [
        goal("median of the mean target errors, mm", _median(mine, "tre_mean_mm"), "<= 0.8"),
        goal("median of the 95th percentiles, mm", _median(mine, "tre_p95_mm"), "<= 1.8"),
        goal("worst mean target error, mm", _extreme(mine, "tre_mean_mm", max), "<= 3"),
        goal("least Jacobian of all, over the region and beyond", _extreme(mine, "least_jacobian", min), "> 0"),
        goal("worst mean inverse consistency, mm", _extreme(mine, "inverse_consistency_mm", max), "<= 0.3"),
    ]
    full = [r for r in mine if r["family"] == FULL_SIZE]
    if full:
        out.append(goal("512x512x120: wall seconds", full[0].get("wall_s"), "<= 15"))
    for name in dict.fromkeys(r["family"] for r in rows):
        here = [r for r in rows if r["family"] == name]
        for peer in PEERS:
            if any(r["engine"] == peer for r in here):
                share = _share(here, peer, "tre_mean_mm")
                out.append(goal(f"{name}: target error over that of {peer}", share, "<= 1"))
        if any(r["engine"] == "itk-elastix" for r in here):
            out.append(goal(f"{name}: time over that of itk-elastix", _share(here, "itk-elastix", "wall_s"), "<= 0.7"))
    return out


def _share(rows: Sequence[dict[str, Any]], peer: str, key: str) -> float | None:
    """The median of ours over the peer's, on the cases that the peer brought to an end; None without any."""
    theirs = [r for r in rows if r["engine"] == peer and key in r]
    ended = {r["seed"] for r in theirs}
    ours_there = [r for r in rows if r["engine"] == OURS and r["seed"] in ended]
    above, below = _median(ours_there, key), _median(theirs, key)
    return None if above is None or below is None else above / below


def _extreme(rows: Sequence[dict[str, Any]], key: str, of: Callable[[list[float]], float]) -> float | None:
    """The largest (`max`) or least (`min`) of a column; None where a row failed."""
    return of([r[key] for r in rows]) if all(key in r for r in rows) else None


def _median(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """The median of a column, failed rows left out; None without any."""
    values = [r[key] for r in rows if key in r]
    return float(np.median(values)) if values else None


if __name__ == "__main__":
    main()
