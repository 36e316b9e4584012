"""The one-page report for people as a PDF, and the same PDF as a DICOM object."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from io import BytesIO

from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from dicom_node.notice import RADIOLOGIST_DECIDES
from dicom_node.results.focus import focus_of, suspicious_finding
from dicom_node.results.identifiers import Identifiers
from dicom_node.results.legend import (
    ENERGY_NAMES,
    FINDING_NAMES,
    VERDICT_COLORS,
    VERDICTS,
    headline_number,
    interval,
    millimeters,
    probability_sentence,
    registration_sentence,
)
from dicom_node.results.page import EDGE_MM, HEIGHT_MM, INK, LINE, QUIET, WIDTH_MM, Page
from dicom_node.results.pictures import draw, legend_handles
from dicom_node.results.planes import Plane
from dicom_node.study import StudyCase
from pipeline.assessment import URGENCY, Assessment, LesionAssessment, Margin

_PICTURE_ROWS = 3
_SCALE_ROWS = 6
_SCALE_END_MM = (-25.0, 30.0)
_TEXT_ROOM_MM = 30.0

_COLUMNS: tuple[tuple[str, float], ...] = (
    ("Lesion", 0.0),
    ("Outcome", 16.0),
    ("Minimal margin\n(95 % interval)", 57.0),
    ("Required\nmargin", 85.0),
    ("Tumor / zone\nml", 102.0),
    ("Tumor\ncovered", 124.0),
    ("Uncovered\nml", 139.5),
    ("Surface below\n0 mm / 5 mm", 157.0),
)


def report_pdf(
    assessment: Assessment,
    study: StudyCase,
    planes: Sequence[Sequence[Plane]],
    identifiers: Identifiers,
) -> bytes:
    """The PDF. planes: of each lesion, in the order of the assessment's lesions."""
    # matplotlib embeds Type 3 fonts unless told otherwise: subsetting as TrueType takes half a second more.
    figure = Figure(figsize=(WIDTH_MM / 25.4, HEIGHT_MM / 25.4), facecolor="white")
    canvas = FigureCanvasPdf(figure)
    page = Page(figure)
    _write_head(page, assessment, study)
    _write_verdict(page, assessment, study)
    _write_pictures(page, assessment, planes)
    _write_scale(page, assessment.lesions)
    _write_table(page, assessment.lesions)
    _write_texts(page, assessment, study)
    _write_foot(page, identifiers)
    out = BytesIO()
    about = {"Title": "Ablation follow-up", "Creator": "Marginwatch", "CreationDate": identifiers.created}
    canvas.print_pdf(out, metadata=about)
    return out.getvalue()


def _write_head(page: Page, assessment: Assessment, study: StudyCase) -> None:
    plan, followup = study.case.plan, study.case.followup
    page.text(0, "Ablation follow-up", 15, weight="bold")
    page.text(page.width, f"Patient {study.patient_id}", 11, ha="right", weight="bold")
    page.y += 7.5
    organ = plan.organ.replace("_", " ")
    page.text(
        0,
        f"{organ.capitalize()}, {ENERGY_NAMES[plan.energy]} on {plan.procedure_date.isoformat()}; "
        f"follow-up of {followup.acquired.isoformat()}, day {assessment.days_since_procedure}",
        9,
        color=QUIET,
    )
    page.text(page.width, f"Plan {plan.plan_id}", 9, ha="right", color=QUIET)
    page.y += 6.5


def _write_verdict(page: Page, assessment: Assessment, study: StudyCase) -> None:
    """The answer first, in words, then its number and its time."""
    color = VERDICT_COLORS[assessment.outcome]
    top, height = page.y, 25.0
    page.box(0, top, page.width, height, "#f3f5f7")
    page.box(0, top, 2.2, height, color)
    page.text(7, VERDICTS[assessment.outcome], 20, y=top + 4.0, weight="bold", color=color)
    page.text(7, _headline(assessment), 11, y=top + 14.0)
    when = f"{assessment.days_since_procedure} days after {ENERGY_NAMES[study.case.plan.energy]}."
    review = " Needs review by a radiologist." if assessment.needs_review else ""
    page.text(7, when + review, 9.5, y=top + 19.4, color=QUIET)
    page.y = top + height + 5.0


def _headline(assessment: Assessment) -> str:
    """What decided: the finding of a progression, else the least margin."""
    found = [
        finding
        for lesion in assessment.lesions
        if lesion.outcome == assessment.outcome == "local_progression"
        and (finding := suspicious_finding(lesion)) is not None
    ]
    if not found:
        return headline_number(assessment)
    largest = max(found, key=lambda finding: finding.volume_ml)
    size = f"{largest.volume_ml:.1f} ml, longest diameter {largest.longest_diameter_mm:.0f} mm"
    return f"{FINDING_NAMES[largest.kind]}, {size}"


def _write_pictures(page: Page, assessment: Assessment, planes: Sequence[Sequence[Plane]]) -> None:
    """Three planes a lesion, the most urgent lesions first, as many as the page has room for."""
    lesions = assessment.lesions
    seen = [n for n in range(len(lesions)) if planes[n][0].signed_mm] or [0]
    order = sorted(seen, key=lambda n: URGENCY.index(lesions[n].outcome))[:_PICTURE_ROWS]
    gap = 3.0
    side = {1: (page.width - 2 * gap) / 3, 2: 45.0}.get(len(order), 34.0)
    for n in order:
        start = page.width - 3 * side - 2 * gap
        if len(lesions) > 1:
            _write_beside(page, lesions[n], alone=len(order) == 1)
        for column, plane in enumerate(planes[n]):
            x = start + column * (side + gap)
            draw(page.axes(x, side, side), plane, lesions[n], scale=side / 100)
            page.text(x, f"{plane.name}, {plane.place}", 7, y=page.y + side + 1.0, color=QUIET)
        page.y += side + 6.0
    handles = {handle.get_label(): handle for n in order for handle in legend_handles(lesions[n], 0.6)}
    if handles:
        page.figure.legend(
            handles=list(handles.values()),
            loc="upper left",
            bbox_to_anchor=((EDGE_MM - 1.5) / WIDTH_MM, 1 - (page.y - 1.2) / HEIGHT_MM),
            ncols=3,
            frameon=False,
            fontsize=8,
            labelcolor=INK,
            borderpad=0.0,
            handlelength=2.6,
        )
        meanings = {focus.meaning for n in order if (focus := focus_of(lesions[n])) is not None}
        if meanings:
            page.text(page.width, f"Ring: {' or '.join(sorted(meanings))}", 8, ha="right", color=QUIET)
        page.y += 8.0


def _write_beside(page: Page, lesion: LesionAssessment, *, alone: bool) -> None:
    if alone:
        page.text(0, f"Lesion {lesion.lesion_id}", 9, weight="bold")
        page.y += 5.0
        return
    page.text(0, f"Lesion {lesion.lesion_id}", 10, weight="bold")
    page.text(0, textwrap.fill(VERDICTS[lesion.outcome], 19), 8.5, y=page.y + 5, color=QUIET)
    if lesion.margin is not None:
        page.text(0, millimeters(lesion.margin.minimal_margin_mm), 12, y=page.y + 14, weight="bold")
        page.text(0, f"({interval(lesion, short=True)})", 8.5, y=page.y + 20, color=QUIET)


def _write_scale(page: Page, lesions: Sequence[LesionAssessment]) -> None:
    """The margins on one ruler: bands for uncovered, narrow and sufficient, a dot and a whisker a lesion, and an open
    diamond where the organ's edge makes less margin enough."""
    shown = [(lesion, lesion.margin) for lesion in lesions if lesion.margin is not None and interval(lesion)]
    shown = [pair for pair in shown if math.isfinite(pair[1].minimal_margin_mm)][:_SCALE_ROWS]
    if not shown:
        return
    lows, highs = zip(*(margin.minimal_margin_interval_mm for _, margin in shown), strict=True)
    low = max(_SCALE_END_MM[0], min(-5.0, *lows) - 1.0)
    high = min(_SCALE_END_MM[1], max(5.0, *(lesion.required_margin_mm for lesion, _ in shown), *highs) + 3.0)
    height = 5.0 * len(shown)
    page.text(0, "Minimal margin, mm", 8, color=QUIET)
    axes = page.axes(30.0, page.width - 30.0, height)
    for row, (lesion, margin) in enumerate(shown):
        y, required = -row, lesion.required_margin_mm
        for left, right, color in ((low, 0, "#f6d5d2"), (0, required, "#fbe8c6"), (required, high, "#d3ecdc")):
            axes.barh(y, right - left, left=left, height=0.86, color=color, lw=0)
        axes.plot(margin.minimal_margin_interval_mm, (y, y), color=INK, lw=1.4, solid_capstyle="butt")
        sign = "o" if low < margin.minimal_margin_mm < high else "<" if margin.minimal_margin_mm <= low else ">"
        axes.plot([min(max(margin.minimal_margin_mm, low + 0.4), high - 0.4)], [y], sign, ms=5.5, color=INK)
        if (credited := _credited_mm(margin)) is not None:
            axes.plot([min(credited, high - 0.4)], [y], "D", ms=5.0, mfc="none", mec=INK)
        if len(shown) > 1:
            axes.text(low + 0.2, y, lesion.lesion_id, size=7.5, va="center", color=INK)
    axes.set(xlim=(low, high), ylim=(-len(shown) + 0.5, 0.5), yticks=[])
    ticks = [tick for tick in range(-30, 41, 5) if low <= tick <= high]
    axes.set_xticks(ticks, [str(tick).replace("-", "−") for tick in ticks])
    axes.tick_params(labelsize=7.5, length=2, color=LINE, labelcolor=QUIET, pad=1.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    page.y += height + 5.5
    names = (("#e0938c", "tumor uncovered"), ("#e3b55c", "narrower than required"), ("#7dbf98", "as required or wider"))
    for column, (color, name) in enumerate(names):
        x = 30.0 + 42.0 * column
        page.box(x, page.y + 0.2, 2.6, 2.2, color)
        page.text(x + 3.8, name, 7.5, color=QUIET)
    if any(_credited_mm(margin) is not None for _, margin in shown):
        page.text(page.width, "◇ organ's edge credited", 7.5, ha="right", color=QUIET)
    page.y += 7.5


def _credited_mm(margin: Margin) -> float | None:
    """The margin with the organ's edge credited, where that makes a difference of the tenth of a millimetre shown."""
    limited = margin.organ_limited_margin_mm
    return limited if limited is not None and limited > margin.minimal_margin_mm + 0.05 else None


def _write_table(page: Page, lesions: Sequence[LesionAssessment]) -> None:
    for name, x in _COLUMNS:
        page.text(x, name, 7.5, color=QUIET)
    page.y += 8.0
    for number, lesion in enumerate(lesions):
        if page.left_mm < _TEXT_ROOM_MM:
            page.text(0, f"{len(lesions) - number} more in assessment.json", 8.5, color=QUIET)
            page.y += 5.4
            break
        page.rule()
        page.y += 1.6
        for (_, x), value in zip(_COLUMNS, _cells(lesion), strict=True):
            page.text(x, value, 8.5, weight="bold" if x == 0 else "normal")
        page.y += 8.6 if lesion.margin is not None else 5.4
    page.rule()
    page.y += 4.5


def _cells(lesion: LesionAssessment) -> tuple[str, ...]:
    name = textwrap.fill(lesion.lesion_id, 8)
    verdict = textwrap.fill(VERDICTS[lesion.outcome], 22)
    margin = lesion.margin
    required = millimeters(lesion.required_margin_mm)
    if margin is None:
        return (name, verdict, "–", required, "–", "–", "–", "–")
    return (
        name,
        verdict,
        f"{millimeters(margin.minimal_margin_mm)}\n({interval(lesion, short=True) or '–'})",
        required,
        f"{margin.tumor_volume_ml:.1f} / {margin.zone_volume_ml:.1f}",
        f"{100 * margin.covered_fraction:.0f} %",
        f"{margin.uncovered_volume_ml:.1f}",
        f"{100 * margin.surface_fraction_below_0mm:.0f} % / {100 * margin.surface_fraction_below_5mm:.0f} %",
    )


def _write_texts(page: Page, assessment: Assessment, study: StudyCase) -> None:
    choice = study.choice
    several = len(assessment.lesions) > 1
    findings = [
        f"{f'Lesion {lesion.lesion_id}: ' if several else ''}{FINDING_NAMES[finding.kind]}, "
        f"{finding.volume_ml:.1f} ml, longest diameter {finding.longest_diameter_mm:.0f} mm."
        for lesion in assessment.lesions
        for finding in lesion.findings
    ]
    planned = [
        f"{f'Lesion {lesion.lesion_id}: s' if several else 'S'}imulated {lesion.simulated_zone.volume_ml:.1f} ml, "
        f"overlap with the zone found {lesion.simulated_zone.dice:.2f} (Dice), "
        f"simulated minimal margin {millimeters(lesion.simulated_zone.minimal_margin_mm)}."
        for lesion in assessment.lesions
        if lesion.simulated_zone is not None
    ]
    likely = [
        f"{f'Lesion {lesion.lesion_id}: ' if several else ''}{probability_sentence(lesion.margin)}"
        for lesion in assessment.lesions
        if lesion.margin is not None and lesion.margin.probability_below_0mm is not None
    ]
    reasons = [reason.text for reason in assessment.reasons]
    reasons += [r.text for lesion in assessment.lesions for r in lesion.reasons]
    sections = (
        ("Findings", findings),
        ("Why", reasons),
        ("Certainty", likely),
        ("Planned zone", planned),
        ("Registration", [registration_sentence(assessment.registration.quality)]),
        ("Series", [f"{choice.series_description or 'Without description'}: {choice.reason}"]),
        ("Notes", [note.text for note in study.notes]),
    )
    for title, lines in sections:
        kept = list(dict.fromkeys(lines))
        if not kept or page.left_mm < 9.0:
            continue
        page.text(0, title, 8.5, weight="bold")
        for line in kept:
            if page.left_mm < 9.0:
                page.paragraph("More in assessment.json.", 8.5, x=26, color=QUIET)
                break
            page.paragraph(line, 8.5, x=26)
        page.y += 1.2


def _write_foot(page: Page, identifiers: Identifiers) -> None:
    page.y = HEIGHT_MM - EDGE_MM
    page.rule()
    page.y += 1.5
    page.text(0, RADIOLOGIST_DECIDES, 8.5, weight="bold")
    made = f"Marginwatch {identifiers.software_version}, {identifiers.created:%Y-%m-%d %H:%M}"
    page.text(page.width, made, 8, ha="right", color=QUIET)
