"""What a person reads on the terminal: an answer, an archive's answers, a running node's addresses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicom_node.notice import NOT_FOR_DIAGNOSIS

if TYPE_CHECKING:
    from dicom_node.batch import BatchReport
    from dicom_node.doctor import Check
    from dicom_node.plans import PlanChange
    from dicom_node.records import RegisteredPlan
    from dicom_node.settings import Settings


def verdict(document: Mapping[str, Any], out: Path) -> str:
    """The answer in a few lines for a terminal."""
    days = document["days_since_procedure"]
    lines = [f"{document['outcome']}  (plan {document['plan_id']}, {days} days after the procedure)"]
    for lesion in document["lesions"]:
        margin = lesion.get("minimal_margin_mm")
        if margin is None:
            lines.append(f"  {lesion['lesion_id']}: {lesion['outcome']}, no margin measured")
            continue
        low, high = lesion["minimal_margin_interval_mm"]
        lines.append(
            f"  {lesion['lesion_id']}: {lesion['outcome']}, minimal margin {margin:.1f} mm ({low:.1f} to {high:.1f}), "
            f"required {lesion['required_margin_mm']:.1f} mm"
        )
    lines += [f"  {reason['text']}" for reason in document["reasons"]]
    lines += [f"  results: {out}", NOT_FOR_DIAGNOSIS]
    return "\n".join(lines)


def simulated_lines(document: Mapping[str, Any], out: Path) -> str:
    """A plan's simulated zones in a few lines for a terminal."""
    lines = [f"simulated  (plan {document['plan_id']}, {document['energy']})"]
    for lesion in document["lesions"]:
        zone, spread = lesion["edges"][0], lesion["spread"]
        of_volume = "" if spread is None else " ({:.1f} to {:.1f} ml)".format(*spread["volume_ml"])
        size = f"{zone['diameter_mm']:.0f} mm across, {zone['length_mm']:.0f} mm long"
        volume = zone["volume_ml_after_cycle"][-1]
        lines.append(f"  {lesion['lesion_id']}: zone {zone['name']}: {volume:.1f} ml{of_volume}, {size}")
        margin = zone["minimal_margin_mm"]
        if margin is None:
            lines.append("    no margin: there is no zone")
        else:
            of_margin = spread and spread["minimal_margin_mm"]
            between = "" if not of_margin else " ({:.1f} to {:.1f} mm)".format(*of_margin)
            lines.append(
                f"    planned minimal margin {margin:.1f} mm{between}, required {lesion['required_margin_mm']:.1f} mm; "
                f"covers {100 * zone['covered_fraction']:.0f} % of the tumor"
            )
        if overlap := lesion["simulated_zone_of_plan"]:
            lines.append(f"    the plan's own zone: {overlap['volume_ml']:.1f} ml, Dice {overlap['dice']:.2f}")
        lines += [f"    {reason['text']}" for reason in lesion["reasons"]]
        lines.append(f"    look at {out / 'images' / (lesion['files'] + '.png')}")
    lines += [f"  {reason['text']}" for reason in document["reasons"]]
    lines += [f"  results: {out}", NOT_FOR_DIAGNOSIS]
    return "\n".join(lines)


def plan_line(plan: RegisteredPlan, change: PlanChange) -> str:
    """What became of a plan that was added."""
    more = {
        "registered": ".",
        "unchanged": ": it was registered before with the same content.",
        "replaced": "; its follow-ups are assessed anew.",
    }
    return f"Plan {plan.plan_id} of patient {plan.patient_id} is {change}{more[change]}"


def first_sentence(document: Mapping[str, Any]) -> str:
    """The first reason of an answer."""
    reasons = document.get("reasons") or [{"text": "The follow-up cannot be assessed."}]
    return str(reasons[0]["text"])


def batch_lines(report: BatchReport) -> Iterator[str]:
    """A line for each follow-up and each file that was passed over, and the sum."""
    for item in report.assessed:
        yield f"{item['patient_id']}  {item['acquired']}  {item['outcome']}  {item['result_folder']}"
    for item in report.skipped:
        name = item.get("path") or f"{item['patient_id'] or 'no patient ID'}  {item['study_instance_uid']}"
        yield f"not assessed: {name}: {item['text']} [{item['code']}]"
    yield f"{len(report.assessed)} assessed, {len(report.skipped)} not. {NOT_FOR_DIAGNOSIS}"


def batch_complaint(report: BatchReport) -> str:
    """What went wrong, as one sentence; empty where every follow-up was assessed and every plan could be used."""
    counted = [(report.refused, "follow-up", "refused"), (report.failed, "follow-up", "failed")]
    counted.append((report.plans_refused, "plan", "refused"))
    wrong = [f"{count} {noun}{'s' if count > 1 else ''} {became}" for count, noun, became in counted if count]
    return f"{', '.join(wrong)}; mend what the list says of them and run batch again." if wrong else ""


def check_lines(checks: Iterable[Check]) -> Iterator[str]:
    """A line for each check, and one more with what to do where it is not good."""
    marks = {"good": "  ok   ", "warning": "  look ", "fault": "FAULT  "}
    for check in checks:
        yield f"{marks[check.level]}{check.name}: {check.text}"
        if check.mend:
            yield f"         {check.mend}"


def addresses(settings: Settings, parts: Collection[str]) -> Iterator[str]:
    """A line for each running part."""
    if "listener" in parts:
        listener = settings.listener
        yield f"DICOM listener: {listener.ae_title} on {listener.host}:{listener.port}"
    if "worker" in parts:
        yield f"worker: {settings.worker.concurrency} at a time, data folder {settings.data_folder}"
    if "review" in parts:
        yield f"review page: {settings.review.url}  {NOT_FOR_DIAGNOSIS}"


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """A callback that shows the stage at work on a terminal; silent elsewhere, where stderr is for the one sentence."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield lambda stage: status.update(f"{stage} …")
