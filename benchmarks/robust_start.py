"""Whether an assessment ends at the same answer however the follow-up lies in its scanner, or is refused.

One made patient, the follow-up moved, rolled, cut, with slices in reverse, with a table, with arms. Surface error: how
far off the tumor's surface lies on the follow-up. --quick: two of the changes.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from document import goal, options, report

from pipeline.assess import assess
from pipeline.case import Case
from pipeline.phantom import Phantom, make_phantom
from pipeline.phantom_changes import Change, changes_of
from pipeline.phantom_stories import story
from pipeline.surface import level_of_mask

QUICK = ("same", "all at once")


def row(name: str, change: Change, phantom: Phantom) -> dict[str, Any]:
    """What was said of one change."""
    made = phantom.followups[0]
    volume, new_from_old = change(made.followup.volume)
    found = assess(Case(phantom.plan, replace(made.followup, volume=volume)))
    margin, transform = found.lesions[0].margin, found.registration.baseline_from_followup
    out: dict[str, Any] = {"change": name, "outcome": found.outcome, "margin_mm": None, "surface_error_mm": None}
    if margin is not None and transform is not None:
        surface = level_of_mask(phantom.plan.lesions[0].tumor).surface().vertices_lps_mm[::5]
        there = made.truth.baseline_from_followup.inverse(surface) @ new_from_old[:3, :3].T + new_from_old[:3, 3]
        out["margin_mm"] = margin.minimal_margin_mm
        out["surface_error_mm"] = float(np.linalg.norm(transform.inverse_points(surface) - there, axis=1).mean())
    return out


def main() -> None:
    """Runs the benchmark."""
    torch.set_num_threads(1)
    chosen = options(__doc__)
    phantom = make_phantom(story("incomplete"))
    rows = []
    changes = changes_of(phantom)
    for name in QUICK if chosen.quick else changes:
        rows.append(row(name, changes[name], phantom))
        print(rows[-1], file=sys.stderr, flush=True)
    answered = [r for r in rows if r["margin_mm"] is not None]
    margins = [r["margin_mm"] for r in answered]
    others = {r["outcome"] for r in rows} - {rows[0]["outcome"], "not_assessable"}
    goals = [
        goal("other outcomes than the undisturbed one, refusals left out", float(len(others)), "<= 0"),
        goal("refused", float(len(rows) - len(answered)), "<= 0"),
        goal(
            "between the least and the greatest margin, mm", max(margins) - min(margins) if margins else None, "<= 0.5"
        ),
    ]
    report("robust_start", rows, goals, as_json=chosen.json)


if __name__ == "__main__":
    main()
