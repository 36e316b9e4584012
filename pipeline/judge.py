"""From measurements to the outcome: the contract's table, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.assessment import URGENCY, Finding, Margin, Reason
from pipeline.case import Outcome

CLEAN: tuple[Outcome, ...] = ("complete", "narrow_margin")


@dataclass(frozen=True)
class Verdict:
    """One lesion's outcome and why."""

    outcome: Outcome
    reasons: tuple[Reason, ...]


def earlier_clean(outcomes: tuple[Outcome, ...]) -> Outcome | None:
    """The latest clean outcome among earlier follow-ups (oldest first), or None."""
    clean = [o for o in outcomes if o in CLEAN]
    return clean[-1] if clean else None


def judge_lesion(
    margin: Margin, findings: tuple[Finding, ...], *, required_margin_mm: float, earlier: tuple[Outcome, ...], days: int
) -> Verdict:
    """The outcome of a lesion whose margin could be measured. earlier: outcomes of earlier follow-ups, oldest first."""
    clean = earlier_clean(earlier)
    changed = [f for f in findings if f.kind in ("new_enhancement", "zone_growth")]
    if "local_progression" in earlier or (clean is not None and changed):
        return Verdict("local_progression", tuple(_told(f, days) for f in changed) or (_STILL,))
    if not np.isfinite(margin.minimal_margin_mm):
        return Verdict("not_assessable", (_NO_NUMBER,))
    if clean is not None:
        text = (
            f"No new enhancement {days} days after the procedure; an earlier follow-up was {_word(clean)} by the "
            f"margin required now, so the {margin.minimal_margin_mm:.1f} mm of today are reported but not judged: "
            "zones shrink. Regrowth that is darker than the organ is not looked for."
        )
        return Verdict(clean, (Reason("unchanged_since_clean_followup", text),))
    if margin.minimal_margin_mm < 0:
        text = (
            f"Tumor reaches {-margin.minimal_margin_mm:.1f} mm beyond the ablation zone; "
            f"{margin.uncovered_volume_ml:.2f} ml of it is not covered."
        )
        return Verdict("incomplete_coverage", (Reason("tumor_not_covered", text), *(_told(f, days) for f in findings)))
    if findings:  # uncovered tumor counts wherever it lies, also in a hole that the surface margin cannot see
        return Verdict("incomplete_coverage", tuple(_told(f, days) for f in findings))
    raw, judged = margin.minimal_margin_mm, margin.judged_mm
    if not judged >= required_margin_mm:
        return Verdict("narrow_margin", (Reason("margin_below_required", _narrow(margin, required_margin_mm)),))
    if raw < required_margin_mm:
        text = (
            f"The least margin of {raw:.1f} mm lies at the organ's edge, where no more than the organ's depth is "
            f"required; elsewhere the margin reaches the {required_margin_mm:.1f} mm required."
        )
        return Verdict("complete", (Reason("margin_reached_to_organ_edge", text),))
    text = f"The least margin of {raw:.1f} mm reaches the {required_margin_mm:.1f} mm required."
    return Verdict("complete", (Reason("margin_reached", text),))


def most_urgent(outcomes: tuple[Outcome, ...]) -> Outcome:
    """The study's outcome. Raises ValueError without any lesion."""
    return min(outcomes, key=URGENCY.index)


def needs_review(outcome: Outcome, margins: tuple[Margin | None, ...]) -> bool:
    """True for all but `complete`, and for a `complete` whose margin may be below 0 mm (95 % interval)."""
    if outcome != "complete":
        return True
    return any(m is None or not m.minimal_margin_interval_mm[0] >= 0 for m in margins)


_NO_NUMBER = Reason("margin_not_measured", "No margin could be measured: its number is none.")
_STILL = Reason("progression_seen_before", "Local progression was found at an earlier follow-up of this lesion.")


def _narrow(margin: Margin, required_mm: float) -> str:
    """The least margin, and the place that decided where the organ's edge makes that another one."""
    least = f"The tumor is covered, but the least margin of {margin.minimal_margin_mm:.1f} mm"
    place = margin.scarcest
    if place is None:
        return f"{least} is below the {required_mm:.1f} mm required."
    if place.margin_mm <= margin.minimal_margin_mm:
        there = " there, at the organ's edge" if place.required_mm < required_mm else ""
        return f"{least} is below the {place.required_mm:.1f} mm required{there}."
    return (
        f"{least} lies at the organ's edge, where no more than the organ's depth is required; {place.location.text}, "
        f"it is {place.margin_mm:.1f} mm, below the {place.required_mm:.1f} mm required there."
    )


def _word(outcome: Outcome) -> str:
    return outcome.replace("_", " ")


def _told(finding: Finding, days: int) -> Reason:
    what = {
        "new_enhancement": "Enhancing tissue that was not there before",
        "zone_growth": "Growth beyond the earlier ablation zone",
        "residual_tumor": "Enhancing residual tumor",
        "uncovered_tumor": "Uncovered tumor",
    }[finding.kind]
    left = finding.kind in ("residual_tumor", "uncovered_tumor")
    where = "not covered by the ablation zone" if left else "at the ablation zone"
    text = (
        f"{what} of {finding.volume_ml:.2f} ml, {finding.longest_diameter_mm:.0f} mm long, {where} "
        f"{days} days after the procedure."
    )
    return Reason(finding.kind, text)
