"""The outcome table of the contract, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.assessment import URGENCY, Finding, FindingKind, Margin
from pipeline.case import Outcome
from pipeline.judge import judge_lesion, most_urgent, needs_review

MARGIN = Margin(6.0, (4.8, 7.2), (0, 0, 0), 4.0, 20.0, 1.0, 0.0, 0.0, 0.0)


def finding(kind: FindingKind) -> tuple[Finding, ...]:
    return (Finding(kind, (0.0, 0.0, 0.0), 0.6, 9.0),)


@pytest.mark.parametrize(
    ("margin_mm", "kinds", "earlier", "outcome"),
    [
        (6.0, (), (), "complete"),
        (5.0, (), (), "complete"),
        (4.99, (), (), "narrow_margin"),
        (-0.1, (), (), "incomplete_coverage"),
        (6.0, ("residual_tumor",), (), "incomplete_coverage"),
        # A hole in the zone that the surface margin does not see.
        (6.0, ("uncovered_tumor",), (), "incomplete_coverage"),
        (6.0, ("new_enhancement",), (), "incomplete_coverage"),
        (6.0, ("new_enhancement",), ("complete",), "local_progression"),
        (6.0, ("zone_growth",), ("narrow_margin",), "local_progression"),
        (6.0, ("new_enhancement",), ("incomplete_coverage",), "incomplete_coverage"),
        (6.0, ("new_enhancement",), ("not_assessable",), "incomplete_coverage"),
        # Zones shrink: after a clean follow-up the margin no longer counts, and the outcome stays the earlier one's.
        (-2.0, (), ("complete",), "complete"),
        (1.0, (), ("narrow_margin",), "narrow_margin"),
        (1.0, (), ("complete", "not_assessable"), "complete"),
        # Progression does not go away by itself.
        (6.0, (), ("complete", "local_progression"), "local_progression"),
        (6.0, (), ("local_progression",), "local_progression"),
    ],
)
def test_outcome(
    margin_mm: float, kinds: tuple[FindingKind, ...], earlier: tuple[Outcome, ...], outcome: Outcome
) -> None:
    margin = replace(MARGIN, minimal_margin_mm=margin_mm)
    findings = tuple(f for kind in kinds for f in finding(kind))
    verdict = judge_lesion(margin, findings, required_margin_mm=5.0, earlier=earlier, days=33)
    assert verdict.outcome == outcome
    assert verdict.reasons
    assert all(r.text.endswith(".") and r.code for r in verdict.reasons)


def test_most_urgent_follows_the_table() -> None:
    assert most_urgent(("complete", "narrow_margin", "not_assessable")) == "not_assessable"
    assert most_urgent(tuple(reversed(URGENCY))) == "local_progression"


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("residual_tumor", "not covered by the ablation zone"),
        ("uncovered_tumor", "not covered by the ablation zone"),
        ("new_enhancement", "at the ablation zone"),
    ],
)
def test_a_finding_is_told_with_its_place(kind: FindingKind, where: str) -> None:
    earlier: tuple[Outcome, ...] = ("complete",) if kind == "new_enhancement" else ()
    finding = Finding(kind, (0.0, 0.0, 0.0), 0.5, 9.0)
    (reason,) = judge_lesion(MARGIN, (finding,), required_margin_mm=5.0, earlier=earlier, days=30).reasons
    assert f"0.50 ml, 9 mm long, {where} 30 days after" in reason.text


def test_review_is_needed_for_all_but_a_sure_complete() -> None:
    sure, unsure = MARGIN, replace(MARGIN, minimal_margin_interval_mm=(-0.2, 3.0))
    assert not needs_review("complete", (sure,))
    assert needs_review("complete", (sure, unsure))
    assert needs_review("complete", (None,))
    assert all(needs_review(outcome, (sure,)) for outcome in URGENCY if outcome != "complete")
