"""Which study is to be assessed against which plan, in which order: the ledger decides, nothing is kept in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement

from dicom_node.ledger import Ledger
from dicom_node.records import ENDED, AssessmentRecord, RegisteredPlan, Study, same_patient

Relation = Literal["baseline", "followup", "before_procedure", "no_images", "other_patient"]
Wait = Literal["receiving", "held", "waiting_for_baseline", "waiting_for_earlier"]


@dataclass(frozen=True)
class Order:
    """How new assessments are made: the best priority they may have, and the software's version."""

    priority: int
    software_version: str


class StudyIndex:
    """The studies of a ledger, to be found by UID and by patient."""

    def __init__(self, studies: Iterable[Study]) -> None:
        self.by_uid: dict[str, Study] = {}
        self.by_patient: dict[str, list[Study]] = {}
        for study in studies:
            self.by_uid[study.study_instance_uid] = study
            self.by_patient.setdefault(study.patient_id, []).append(study)

    def baseline(self, plan: RegisteredPlan) -> Study | None:
        """The plan's baseline study once it is complete."""
        study = self.by_uid.get(plan.baseline_study_instance_uid)
        return study if study is not None and study.complete else None

    def followups(self, plan: RegisteredPlan) -> list[Study]:
        """The plan's follow-ups in time order, oldest first; those without a date last."""
        mine = [study for study in self.by_patient.get(plan.patient_id, ()) if relation(study, plan) == "followup"]
        return sorted(mine, key=lambda study: (study.acquired or "99999999", study.study_instance_uid))


def relation(study: Study, plan: RegisteredPlan) -> Relation:
    """What the study is to the plan. A study without a date counts as a follow-up: decoding it says what is wrong."""
    if study.study_instance_uid == plan.baseline_study_instance_uid:
        return "baseline"
    if not same_patient(study.patient_id, study.issuer_of_patient_id, plan):
        return "other_patient"
    if not study.images:
        return "no_images"
    if study.acquired and study.acquired < plan.procedure_date:
        return "before_procedure"
    return "followup"


def may_have_earlier(study: Study, plan: RegisteredPlan) -> bool:
    """Whether the study is a follow-up of the plan before which there may be others."""
    return relation(study, plan) == "followup" and study.acquired > plan.procedure_date


def due(ledger: Ledger, order: Order) -> list[AssessmentRecord]:
    """The assessments that can run now, recorded or new: for each plan at most one, the earliest open follow-up's.

    An assessment is due when nothing was assessed yet from the same inputs: the study's and the baseline's
    revision, the plan's content, and the earlier follow-ups' results. So a late slice, a corrected plan or an earlier
    scan that arrives after a later one brings about a new assessment, which supersedes the old.
    """
    studies = StudyIndex(ledger.studies())
    current = {
        (record.study_instance_uid, record.plan_id): record
        for record in ledger.current_assessments(with_documents=False)
    }
    found = (_next_due(plan, studies, current, order) for plan in ledger.plans())
    return [record for record in found if record is not None]


def route(ledger: Ledger, order: Order, *, permitted: ColumnElement[bool] | None = None) -> list[AssessmentRecord]:
    """What is due, new assessments recorded as queued. For one worker only: one router, one order of things.

    permitted: asked of the database whenever something is recorded.
    """
    runnable = due(ledger, order)
    return [r for r in runnable if r.queued_at or ledger.queue(r, permitted=permitted)]


def waits(plan: RegisteredPlan, studies: StudyIndex, ended: set[str]) -> Iterator[tuple[Study, Wait]]:
    """The plan's follow-ups that cannot be assessed yet, and what each waits for. ended: assessed study UIDs."""
    baseline_ready = studies.baseline(plan) is not None
    earlier_open = False
    for study in studies.followups(plan):
        if not study.complete:
            yield study, "held" if study.held else "receiving"
        elif not baseline_ready:
            yield study, "waiting_for_baseline"
        elif earlier_open:
            yield study, "waiting_for_earlier"
        earlier_open = earlier_open or study.study_instance_uid not in ended


def is_current(record: AssessmentRecord, ledger: Ledger) -> bool:
    """Whether the assessment still answers for its study: what went into it is as it was, and no newer one was made."""
    if ledger.assessment(record.assessment_id).superseded:
        return False
    studies = StudyIndex(ledger.studies())
    plan = next((plan for plan in ledger.plans() if plan.plan_id == record.plan_id), None)
    study = studies.by_uid.get(record.study_instance_uid)
    baseline = None if plan is None else studies.by_uid.get(plan.baseline_study_instance_uid)
    if plan is None or study is None or baseline is None:
        return False
    return record.inputs == _inputs(study, baseline, plan, record.previous)


def _next_due(
    plan: RegisteredPlan,
    studies: StudyIndex,
    current: dict[tuple[str, str], AssessmentRecord],
    order: Order,
) -> AssessmentRecord | None:
    """The plan's earliest follow-up that is not assessed from its present inputs, if it can be assessed now."""
    baseline = studies.baseline(plan)
    if baseline is None:
        return None
    done: list[tuple[str, str]] = []
    for study in studies.followups(plan):
        if not study.complete:
            return None
        # Two studies of one day are not each other's past.
        previous = [name for acquired, name in done if acquired < str(study.acquired)]
        record = current.get((study.study_instance_uid, plan.plan_id))
        inputs = _inputs(study, baseline, plan, previous)
        if record is None or record.inputs != inputs:
            number = 1 if record is None else record.number + 1
            return _new_assessment(study, plan, inputs=inputs, previous=previous, number=number, order=order)
        if record.state not in ENDED:
            return record
        if record.state == "done":
            done.append((str(study.acquired), record.assessment_id))
    return None


def _new_assessment(
    study: Study, plan: RegisteredPlan, *, inputs: str, previous: Sequence[str], number: int, order: Order
) -> AssessmentRecord:
    identity = _digest(inputs, plan.plan_id, order.software_version, number)
    return AssessmentRecord(
        assessment_id=identity,
        study_instance_uid=study.study_instance_uid,
        plan_id=plan.plan_id,
        inputs=inputs,
        revision=study.revision,
        number=number,
        priority=max(order.priority, study.priority),
        previous=tuple(previous),
        folder=f"results/{study.study_instance_uid}/{identity[:16]}",
    )


def _inputs(study: Study, baseline: Study, plan: RegisteredPlan, previous: Sequence[str]) -> str:
    """Names all that goes into an assessment. previous: the earlier ones it builds on, oldest first."""
    return _digest(study.study_instance_uid, study.revision, baseline.revision, plan.digest, list(previous))


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
