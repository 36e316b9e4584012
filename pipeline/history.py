"""What earlier follow-ups of a lesion vouch for."""

from __future__ import annotations

from pipeline.case import Case, EarlierFollowUp, EarlierLesion, Lesion, Outcome
from pipeline.judge import CLEAN
from pipeline.zone_prior import prior_scale

#: What is left at the least of the volume to which zones usually shrink from one follow-up to the next; this project's
#: own choice.
LEAST_OF_USUAL = 0.5


def earlier_of(case: Case, lesion: Lesion) -> list[tuple[EarlierFollowUp, EarlierLesion]]:
    """What earlier follow-ups found for a lesion, oldest first."""
    return [(p, e) for p in case.previous for e in p.lesions if e.lesion_id == lesion.lesion_id]


def earlier_outcomes(case: Case, lesion: Lesion) -> tuple[Outcome, ...]:
    """A lesion's outcomes, oldest first, by the margin that is required now: what was complete by a smaller one, or by
    one that is not known, was surely covered and no more."""
    out: list[Outcome] = []
    for _, found in earlier_of(case, lesion):
        asked_mm = found.required_margin_mm
        enough = asked_mm is not None and asked_mm >= lesion.required_margin_mm
        out.append("narrow_margin" if found.outcome == "complete" and not enough else found.outcome)
    return tuple(out)


def may_have_shrunk_to(volume_ml: float, case: Case, lesion: Lesion) -> bool:
    """Whether a zone of this volume can be what has become of the latest clean one; True where none is kept."""
    for earlier, found in reversed(earlier_of(case, lesion)):
        if found.outcome in CLEAN and found.zone is not None:
            now, then = (
                prior_scale(days, case.plan.energy)
                for days in (case.days_since_procedure, earlier.days_since_procedure)
            )
            usual = (now / then) ** 3
            return volume_ml >= LEAST_OF_USUAL * usual * found.zone.volume_ml
    return True
