"""The words a reader sees for outcomes and states, each with a sign of its own: color never speaks alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """text: for a person; sign: a character that tells it apart without color; tone: which color class it has."""

    text: str
    sign: str
    tone: str


OUTCOMES = {
    "local_progression": Word("Local progression", "▲", "alarm"),
    "incomplete_coverage": Word("Incomplete coverage", "■", "alarm"),
    "not_assessable": Word("Not assessable", "?", "caution"),
    "narrow_margin": Word("Narrow margin", "◆", "caution"),
    "complete": Word("Complete", "✓", "fine"),
}
REQUESTS = {
    "count": "Whether the study is whole",
    "baseline": "The baseline scan",
    "earlier": "Earlier follow-ups",
    "followup": "This follow-up",
    "missing": "What is missing of it",
}
STATES = {
    "receiving": Word("Receiving", "…", "quiet"),
    "held": Word("Held: not all of it is here", "!", "caution"),
    "waiting_for_baseline": Word("Waiting for the baseline scan", "…", "quiet"),
    "waiting_for_earlier": Word("Waiting for an earlier follow-up", "…", "quiet"),
    "queued": Word("Queued", "…", "quiet"),
    "running": Word("Being assessed", "…", "quiet"),
    "done": Word("Assessed", "✓", "fine"),
    "refused": Word("Cannot be used", "!", "caution"),
    "failed": Word("Failed", "!", "alarm"),
    "cancelled": Word("Called off", "×", "quiet"),
    "no_plan": Word("No plan for this patient", "–", "quiet"),
    "baseline": Word("Baseline scan of a plan", "–", "quiet"),
    "before_procedure": Word("From before the procedure", "–", "quiet"),
    "no_images": Word("No CT or MR images", "–", "quiet"),
}
