"""What the node lacks of a planned patient, from the PACSs: the baseline, earlier follow-ups, the rest of a study.

Nothing is asked for but of patients with a plan. What is not there is asked for again, ever more seldom.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dicom_node.audit.message import StudyPart
from dicom_node.exchange.answers import NoAnswer, RemoteStudy, Wanted
from dicom_node.exchange.lacking import lacking
from dicom_node.exchange.peer import Deposit, asking, bring
from dicom_node.exchange.requests import Purpose, Question, Requests, RequestState
from dicom_node.exchange.spared import SILENT_PACS, Spared
from dicom_node.ledger import Ledger
from dicom_node.logs import about
from dicom_node.peers import Pacs
from dicom_node.records import Identity, RegisteredPlan, Study, same_patient
from dicom_node.refusal import Refused
from dicom_node.routing import StudyIndex, may_have_earlier
from dicom_node.schema import DATABASE_AWAY
from dicom_node.settings import Settings

_LOG = logging.getLogger("marginwatch.exchange")


@dataclass(frozen=True)
class _Task:
    """A study to be brought for a plan, or about which to be asked."""

    purpose: Purpose
    study_instance_uid: str
    plan: RegisteredPlan


#: Hears which instances of a study a PACS has sent, as far as they did not come to the listener.
TellsFetched = Callable[[Pacs, StudyPart], None]


class _Stopping(BaseException):
    """The worker goes down or is lost: another goes on with it."""


class Fetcher:
    """Asks and fetches, in rounds. For one thread. told: hears of each study of which something was brought; clock:
    seconds that only go forward.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        deposit: Deposit,
        *,
        told: TellsFetched = lambda _pacs, _part: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._told = told
        self._ledger = ledger
        self._deposit = deposit
        self._requests = Requests(ledger, settings.fetch)
        self._silent = Spared(SILENT_PACS, clock)
        self._stopped: Callable[[], bool] = lambda: False

    def look(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """One round: whatever is lacking and due."""
        if not self._settings.pacs:
            return
        self._stopped = stopped
        with suppress(_Stopping):
            self._look()

    def _look(self) -> None:
        waiting = self._requests.waiting()
        for task in self._tasks():
            for pacs in self._settings.pacs:
                self._go_on()
                question = Question(pacs.name, task.purpose, task.study_instance_uid)
                if pacs.name in self._silent or question in waiting:
                    continue
                with about(study_instance_uid=task.study_instance_uid, patient_id=task.plan.patient_id, step="fetch"):
                    state, text = self._try(task, pacs)
                self._requests.record(question, state, text)
                if state == "no_answer":
                    self._silent.add(pacs.name)
                if state == "brought":
                    break

    def _go_on(self) -> None:
        if self._stopped():
            raise _Stopping

    def _tasks(self) -> list[_Task]:
        """What is wanted; each study once for a purpose, on account of the plan with the earliest procedure."""
        studies = StudyIndex(self._ledger.studies())
        plans = sorted(self._ledger.plans(), key=lambda plan: plan.procedure_date)
        found: dict[tuple[Purpose, str], _Task] = {}
        for task in (task for plan in plans for task in self._of_plan(plan, studies)):
            found.setdefault((task.purpose, task.study_instance_uid), task)
        return list(found.values())

    def _of_plan(self, plan: RegisteredPlan, studies: StudyIndex) -> Iterator[_Task]:
        baseline = studies.by_uid.get(plan.baseline_study_instance_uid)
        if self._settings.fetch.baseline and (baseline is None or not baseline.images):
            yield _Task("baseline", plan.baseline_study_instance_uid, plan)
        followups = [study for study in studies.followups(plan) if may_have_earlier(study, plan)]
        for study in followups if self._settings.fetch.earlier_followups else ():
            if not study.complete or study is followups[-1]:
                yield _Task("earlier", study.study_instance_uid, plan)
        mine = studies.followups(plan) if baseline is None else [baseline, *studies.followups(plan)]
        for study in mine:
            if study.held:
                yield _Task("missing", study.study_instance_uid, plan)

    def _try(self, task: _Task, pacs: Pacs) -> tuple[RequestState, str]:
        """What came of asking one PACS, and a sentence on it."""
        try:
            if task.purpose == "earlier":
                return self._bring_earlier(task, pacs)
            return self._bring(task, pacs)
        except NoAnswer as problem:
            return "no_answer", f"{pacs.ae_title}: {problem}."
        except Refused as refused:
            return "not_stored", f"What {pacs.ae_title} sent could not be stored: {refused.text}"
        except OSError as problem:
            return "not_stored", f"What {pacs.ae_title} sent could not be stored: {problem.strerror or problem}."
        except DATABASE_AWAY:
            raise
        except Exception as problem:  # noqa: BLE001  a worker: one study must not stop the others
            _LOG.exception("what %s has of a study could not be looked into; trying again", pacs.name)
            return (
                "fault",
                f"The node failed at what {pacs.ae_title} has ({type(problem).__name__}); see its log.",
            )

    def _bring(self, task: _Task, pacs: Pacs) -> tuple[RequestState, str]:
        """Fetch what the PACS has of a study and the node has not."""
        uid, ours = task.study_instance_uid, self._settings.listener.ae_title
        with asking(pacs, ours) as query:
            study = next((x for x in query.studies(study_instance_uid=uid) if x.study_instance_uid == uid), None)
            if study is None:
                return "not_there", f"{pacs.ae_title} does not have it."
            if not same_patient(study.patient_id, study.issuer_of_patient_id, task.plan):
                return "other_patient", f"{pacs.ae_title} has it under another patient than the plan's; check the plan."
            lacks = lacking(query, uid, self._ledger.instances(uid))
        deposit = _Counted(self._deposit)
        try:
            for lack in lacks:
                self._go_on()
                images = () if lack.whole else lack.sop_instance_uids
                bring(pacs, ours, Wanted(study.patient_id, uid, lack.series_instance_uid, images), deposit)
        finally:
            if deposit.kept or deposit.failed:
                self._told(pacs, StudyPart(uid, study.patient_id, deposit.kept, deposit.failed))
        count = sum(len(lack.sop_instance_uids) for lack in lacks)
        if not count:
            return "answered", f"{pacs.ae_title} has no more of it."
        _LOG.info("%d images were fetched from %s", count, pacs.name)
        return "brought", f"{count} images were fetched from {pacs.ae_title}."

    def _bring_earlier(self, task: _Task, pacs: Pacs) -> tuple[RequestState, str]:
        """Fetch the follow-ups between the procedure and this one that the PACS has and the node has not."""
        known = {study.study_instance_uid: study for study in self._ledger.studies()}
        this, plan = known[task.study_instance_uid], task.plan
        first = max(plan.procedure_date, self._earliest_before(this))
        with asking(pacs, self._settings.listener.ae_title) as query:
            lacked = [
                study.study_instance_uid
                for study in query.studies(patient_id=plan.patient_id, dates=f"{first}-{this.acquired}")
                if _is_earlier(study, this, plan, first)
                and study.study_instance_uid not in known
                and any(series.modality in ("CT", "MR") for series in query.series(study.study_instance_uid))
            ]
        for uid in lacked:
            state, text = self._bring(_Task("followup", uid, plan), pacs)
            self._requests.record(Question(pacs.name, "followup", uid), state, text)
        return "answered", f"Earlier follow-ups that {pacs.ae_title} had and the node lacked: {len(lacked)}."

    def _earliest_before(self, study: Study) -> str:
        """The day from which on earlier follow-ups are looked for."""
        day = datetime.strptime(study.acquired + "+0000", "%Y%m%d%z").astimezone(UTC)
        return f"{day - timedelta(days=self._settings.fetch.back_days):%Y%m%d}"


class _Counted:
    """A deposit that counts. kept: instances by SOP class; failed: those that could not be stored."""

    def __init__(self, deposit: Deposit) -> None:
        self._deposit = deposit
        self.kept: Counter[str] = Counter()
        self.failed = 0

    def __call__(self, content: bytes, *, received_from: str) -> Identity:
        try:
            identity = self._deposit(content, received_from=received_from)
        except (Refused, OSError):
            self.failed += 1
            raise
        self.kept[identity.sop_class_uid] += 1
        return identity


def _is_earlier(study: RemoteStudy, than: Study, plan: RegisteredPlan, first: str) -> bool:
    """Whether it is the plan's patient's, from before a follow-up; the PACS may not have looked at every key."""
    mine = same_patient(study.patient_id, study.issuer_of_patient_id, plan)
    is_other = study.study_instance_uid not in (than.study_instance_uid, plan.baseline_study_instance_uid)
    return mine and is_other and first <= study.study_date <= than.acquired
