"""When a study is whole: its sender says so, a site's expectation is met, or nothing more comes and nothing is missing.

A study that is called complete too early gives a wrong verdict; one that waits is only late, and shown. So whatever
speaks for a missing image holds a study, until the image comes or a person releases it.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from dicom_node.back_off import BackOff
from dicom_node.exchange.answers import NoAnswer
from dicom_node.exchange.holes import SeriesFacts, facts_of
from dicom_node.exchange.lacking import lacking
from dicom_node.exchange.peer import asking
from dicom_node.exchange.requests import Question, Request, Requests, RequestState
from dicom_node.exchange.spared import SILENT_PACS, Spared
from dicom_node.ledger import Ledger
from dicom_node.liveness import Stillness
from dicom_node.logs import about
from dicom_node.peers import ExpectedSeries, Pacs
from dicom_node.records import IMAGE_CLASSES, Instance, Study
from dicom_node.routing import may_have_earlier
from dicom_node.schema import DATABASE_AWAY
from dicom_node.settings import Settings

_LOG = logging.getLogger("marginwatch.exchange")
_COMPLETE = ""
_UNKNOWN = (
    "Whether all of it is here cannot be found out for a fault of the node ({}); its log says more. Release the study "
    "to have it assessed as it is."
)
#: What counts at most as silence between two looks, and how long nobody may have looked for it to count at all: after
#: the database was away, what waits in the inbox comes first.
_LONGEST_STEP_S = 10.0
_AFTER_A_FAULT = BackOff(10.0, 600.0)


@dataclass
class Completeness:
    """Calls studies complete or held, in rounds. For one thread. clock: seconds that only go forward.

    How long nothing came is measured by it from when this process first saw the last arrival: the times of arrivals
    are other machines', and may jump.
    """

    settings: Settings
    ledger: Ledger
    clock: Callable[[], float] = time.monotonic
    longest_step_s: float = _LONGEST_STEP_S
    _facts: dict[str, tuple[float, list[SeriesFacts]]] = field(default_factory=dict)
    _quiet_s: dict[str, float] = field(default_factory=dict)
    _looked_until_s: float = float("-inf")

    def __post_init__(self) -> None:
        self._requests = Requests(self.ledger, self.settings.fetch)
        self._stillness = Stillness(longest_step_s=self.longest_step_s)
        self._silent = Spared(SILENT_PACS, self.clock)
        self._faulty = Spared(_AFTER_A_FAULT, self.clock)

    def look(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """One round over the studies that are not complete."""
        if self.clock() - self._looked_until_s > self.longest_step_s:
            self._stillness.interrupt()
        studies = {study.study_instance_uid: study for study in self.ledger.incomplete_studies()}
        last_arrivals = {uid: study.last_arrival for uid, study in studies.items()}
        self._quiet_s = self._stillness.look(last_arrivals, self.clock())
        self._faulty.keep(studies.keys())
        self._facts = {uid: kept for uid, kept in self._facts.items() if uid in studies}
        for uid, study in studies.items():
            if stopped():
                return
            if uid not in self._faulty or study.released:
                with about(study_instance_uid=uid, patient_id=study.patient_id, step="complete"):
                    self._judge(study)
        self._looked_until_s = self.clock()

    def _judge(self, study: Study) -> None:
        try:
            verdict = self._verdict(study)
        except DATABASE_AWAY:
            raise
        except Exception as problem:  # noqa: BLE001  a worker: one study must not stop the others
            _LOG.exception("whether a study is whole cannot be found out; trying again")
            self._faulty.add(study.study_instance_uid)
            is_quiet = self._quiet_s[study.study_instance_uid] >= self.settings.listener.quiet_time_s
            verdict = _UNKNOWN.format(type(problem).__name__) if is_quiet else None
        if verdict is not None and (verdict == _COMPLETE or verdict != study.held):
            self.ledger.settle(study, held=verdict)
            if verdict == _COMPLETE:
                _LOG.info("the study is complete")
                self._requests.forget("count", study.study_instance_uid)
                self._requests.forget("missing", study.study_instance_uid)
            elif not study.held:
                _LOG.warning("a study is held: not all of it seems to be here; the work list says what is missing")

    def _verdict(self, study: Study) -> str | None:
        """Empty: it is complete; a sentence: it is held; None: wait and see."""
        quiet_s = self._quiet_s[study.study_instance_uid]
        quiet_time_s = self.settings.listener.quiet_time_s
        if study.released:
            return _COMPLETE
        if quiet_s < min(self.settings.complete.settle_s, quiet_time_s):
            return None
        if not study.images:
            return _COMPLETE if quiet_s >= quiet_time_s else None
        verdict = self._of_images(study, quiet_s)
        patience_s = quiet_time_s + self.settings.complete.wait_for_answer_s
        if verdict == _COMPLETE and quiet_s < patience_s and not self._earlier_are_known(study):
            return None
        return verdict

    def _of_images(self, study: Study, quiet_s: float) -> str | None:
        instances = self.ledger.instances(study.study_instance_uid)
        sender = self._sender(instances)
        said = None if sender is None else self._ask(sender, study, instances)
        if said == _COMPLETE:
            return _COMPLETE
        wanted = self.settings.complete.expected_series
        is_quiet = quiet_s >= self.settings.listener.quiet_time_s
        if not is_quiet and not wanted:
            return None
        facts = self._facts_of(study, instances)
        unmet = expectations_unmet(wanted, facts)
        hole = next((one.missing for one in facts if one.missing), "")
        holed = hole if self.settings.complete.hold_missing_slices else ""
        met = bool(wanted) and any(one.modality in {x.modality for x in wanted} for one in facts) and not unmet
        if said is None and met and not holed:
            return _COMPLETE
        if not is_quiet:
            return None
        if said is not None:
            return said
        patience_s = self.settings.listener.quiet_time_s + self.settings.complete.wait_for_answer_s
        if sender is not None and quiet_s < patience_s:
            return None
        return unmet or holed

    def _sender(self, instances: Sequence[Instance]) -> Pacs | None:
        """The PACS that brought the study, if it is one that may be asked."""
        titles = {instance.received_from for instance in instances}
        return next((pacs for pacs in self.settings.pacs if pacs.ae_title.strip() in titles), None)

    def _ask(self, pacs: Pacs, study: Study, instances: Sequence[Instance]) -> str | None:
        """What the sender says of the study: empty, that it has no more; a sentence, that it has; None, nothing."""
        uid = study.study_instance_uid
        question = Question(pacs.name, "count", uid)
        last = self._requests.last(question)
        if last is None or last.last_arrival != study.last_arrival or last.is_due(self.ledger.now()):
            # What it said it has, it has, though it is silent now.
            more = last if last is not None and last.state == "more" else None
            if pacs.name in self._silent:
                return None if more is None else _more(more)
            try:
                with asking(pacs, self.settings.listener.ae_title) as query:
                    lacks = lacking(query, uid, instances)
            except NoAnswer as problem:
                self._silent.add(pacs.name)
                if more is None:
                    self._requests.record(question, "no_answer", str(problem), study.last_arrival)
                    return None
                self._requests.record(question, more.state, more.text, study.last_arrival)
                return _more(more)
            count = sum(len(lack.sop_instance_uids) for lack in lacks)
            text = f"{pacs.ae_title} has {count} more image{'s' if count != 1 else ''} of {len(lacks)} series"
            state: RequestState = "more" if lacks else "answered"
            self._requests.record(question, state, text if lacks else "", study.last_arrival)
            if not lacks:
                return _COMPLETE
            last = self._requests.last(question)
        assert last is not None
        if last.state == "answered":
            return _COMPLETE
        if last.state == "more":
            return _more(last)
        return None

    def _facts_of(self, study: Study, instances: Sequence[Instance]) -> list[SeriesFacts]:
        known = self._facts.get(study.study_instance_uid)
        if known is None or known[0] != study.last_arrival:
            images = [x for x in instances if x.sop_class_uid in IMAGE_CLASSES]
            paths = [self.settings.data_folder / Path(image.path) for image in images]
            known = (study.last_arrival, facts_of(paths))
            self._facts[study.study_instance_uid] = known
        return known[1]

    def _earlier_are_known(self, study: Study) -> bool:
        """Whether every PACS has said which earlier follow-ups there are: they change how this one is judged."""
        if not (self.settings.pacs and self.settings.fetch.earlier_followups and study.acquired):
            return True
        if not any(may_have_earlier(study, plan) for plan in self.ledger.plans()):
            return True
        asked = [
            self._requests.last(Question(pacs.name, "earlier", study.study_instance_uid)) for pacs in self.settings.pacs
        ]
        return all(request is not None and request.state == "answered" for request in asked)


def expectations_unmet(expected: Sequence[ExpectedSeries], facts: Sequence[SeriesFacts]) -> str:
    """A sentence on the first series that a site expects and that is not here; empty where all are.

    What is expected of one modality is asked of studies that have a series of it.
    """
    for item in expected:
        of_modality = [one for one in facts if one.modality == item.modality]
        fitting = [one for one in of_modality if re.search(item.description, one.description, re.IGNORECASE)]
        most = max((one.images for one in fitting), default=0)
        if of_modality and most < item.at_least:
            named = f' named like "{item.description}"' if item.description else ""
            return (
                f"A {item.modality} series{named} with at least {item.at_least} images is expected, and the largest "
                f"here has {most}; send it, or release the study to have it assessed as it is."
            )
    return ""


def _more(said: Request) -> str:
    return f"{said.text} (asked {_utc(said.at)}); send them, or release the study to have it assessed without."


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
