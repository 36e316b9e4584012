"""Every study with what became of it, the most urgent first: what the page, the interface and batch show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dicom_node.exchange.requests import Request, requests_by_subject
from dicom_node.ledger import Ledger
from dicom_node.records import ENDED, AssessmentRecord, RegisteredPlan, Study
from dicom_node.routing import StudyIndex, relation, waits
from pipeline.assessment import URGENCY

StudyState = Literal[
    "receiving",
    "held",
    "waiting_for_baseline",
    "waiting_for_earlier",
    "queued",
    "running",
    "done",
    "refused",
    "failed",
    "cancelled",
    "no_plan",
    "baseline",
    "before_procedure",
    "no_images",
]
#: Studies nobody has to look at come last; those not assessed for a fault stand with the not assessable ones.
_STATE_ORDER: tuple[StudyState, ...] = (
    "held",
    "running",
    "queued",
    "waiting_for_earlier",
    "waiting_for_baseline",
    "receiving",
    "done",
    "cancelled",
    "no_plan",
    "no_images",
    "before_procedure",
    "baseline",
)


@dataclass(frozen=True)
class Entry:
    """One study against one plan, or one study without a plan."""

    study: Study
    plan_id: str | None
    state: StudyState
    conflicts: int = 0
    record: AssessmentRecord | None = None
    document: Mapping[str, Any] = field(default_factory=dict)
    """The `assessment.json`; empty while there is none."""
    requests: tuple[Request, ...] = ()
    """What PACSs were asked for on its account."""

    @property
    def outcome(self) -> str | None:
        return self.document.get("outcome")

    @property
    def thinnest(self) -> Mapping[str, Any]:
        """The lesion with the least margin; empty where no margin was measured."""
        measured = [x for x in self.document.get("lesions", ()) if x.get("minimal_margin_mm") is not None]
        return min(measured, key=lambda lesion: float(lesion["minimal_margin_mm"])) if measured else {}

    def as_json(self) -> dict[str, Any]:
        """The entry as the interface gives it."""
        error = None
        if self.record is not None and self.record.state in ("refused", "failed", "cancelled"):
            error = {"code": self.record.code, "text": _first_line(self.record.text)}
        return {
            "study_instance_uid": self.study.study_instance_uid,
            "patient_id": self.study.patient_id,
            "plan_id": self.plan_id,
            "acquired": self.study.acquired,
            "revision": self.study.revision,
            "state": self.state,
            "outcome": self.outcome,
            "needs_review": self.document.get("needs_review"),
            "minimal_margin_mm": self.thinnest.get("minimal_margin_mm"),
            "minimal_margin_interval_mm": self.thinnest.get("minimal_margin_interval_mm"),
            "days_since_procedure": self.document.get("days_since_procedure"),
            "reasons": self.document.get("reasons", []),
            "error": error,
            "conflicting_instances": self.conflicts,
            "held": self.study.held,
            "requests": [vars(request) for request in self.requests],
        }


def worklist(ledger: Ledger, *, with_documents: bool = True) -> list[Entry]:
    """All studies, the most urgent first: by outcome, then those that need review, then the least margin.

    with_documents: without them it takes less time, and there are neither outcomes nor requests.
    """
    studies, plans = ledger.studies(), ledger.plans()
    records = {(r.study_instance_uid, r.plan_id): r for r in ledger.current_assessments(with_documents=with_documents)}
    conflicts = ledger.conflict_counts()
    waiting = _waiting(StudyIndex(studies), plans, records)
    requests = requests_by_subject(ledger) if with_documents else {}
    plans_of: dict[str, list[RegisteredPlan]] = {}
    for plan in plans:
        for key in (plan.patient_id, plan.baseline_study_instance_uid):
            plans_of.setdefault(key, []).append(plan)
    entries = []
    for study in studies:
        mine = {p.plan_id: p for key in (study.patient_id, study.study_instance_uid) for p in plans_of.get(key, ())}
        for plan_id, state in _states(study, list(mine.values()), waiting):
            record = records.get((study.study_instance_uid, plan_id or ""))
            entry = _entry(study, plan_id, state, conflicts, record)
            wanted = [study.study_instance_uid]
            if state == "waiting_for_baseline" and plan_id is not None:
                wanted.append(mine[plan_id].baseline_study_instance_uid)
            asked = tuple(request for uid in wanted for request in requests.get(uid, ()))
            entries.append(replace(entry, requests=asked))
    return sorted(entries, key=_urgency)


def _waiting(
    studies: StudyIndex, plans: Sequence[RegisteredPlan], records: Mapping[tuple[str, str], AssessmentRecord]
) -> dict[tuple[str, str], StudyState]:
    ended: dict[str, set[str]] = {}
    for (uid, plan_id), record in records.items():
        if record.state in ENDED:
            ended.setdefault(plan_id, set()).add(uid)
    found: dict[tuple[str, str], StudyState] = {}
    for plan in plans:
        for study, wait in waits(plan, studies, ended.get(plan.plan_id, set())):
            found[study.study_instance_uid, plan.plan_id] = wait
    return found


def _states(
    study: Study, plans: Sequence[RegisteredPlan], waiting: Mapping[tuple[str, str], StudyState]
) -> list[tuple[str | None, StudyState]]:
    """The plans the study belongs to with its state for each; a single item without a plan when there is none."""
    as_followup: list[tuple[str | None, StudyState]] = []
    otherwise: list[tuple[str | None, StudyState]] = []
    for plan in plans:
        kind = relation(study, plan)
        if kind == "followup":
            as_followup.append((plan.plan_id, waiting.get((study.study_instance_uid, plan.plan_id), "queued")))
        elif kind != "other_patient":
            otherwise.append((plan.plan_id, kind))
    if as_followup:
        return as_followup
    if not study.complete:
        return [(otherwise[0][0] if otherwise else None, "held" if study.held else "receiving")]
    if otherwise:
        return otherwise[:1]
    return [(None, "no_plan" if study.images else "no_images")]


def _entry(
    study: Study,
    plan_id: str | None,
    state: StudyState,
    conflicts: Mapping[str, int],
    record: AssessmentRecord | None,
) -> Entry:
    count = conflicts.get(study.study_instance_uid, 0)
    if record is None or state in ("receiving", "held"):
        return Entry(study, plan_id, state, count)
    return Entry(study, plan_id, record.state, count, record, record.document or {})


def _urgency(entry: Entry) -> tuple[float, float, float, float, str]:
    if entry.outcome is not None:
        group = float(URGENCY.index(entry.outcome))  # type: ignore[arg-type]
    elif entry.state in ("refused", "failed"):
        group = float(URGENCY.index("not_assessable"))
    else:
        group = float(len(URGENCY))
    state = _STATE_ORDER.index(entry.state) if entry.state in _STATE_ORDER else 0
    margin = entry.thinnest.get("minimal_margin_mm")
    unreviewed = 0.0 if entry.document.get("needs_review", True) else 1.0
    return (
        group,
        state if group == len(URGENCY) else 0.0,
        unreviewed,
        float("-inf") if margin is None else float(margin),
        entry.study.study_instance_uid,
    )


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0]
