"""The picture of a simulated zone for people: three planes through the tumor's center."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from dicom_node.notice import RADIOLOGIST_DECIDES
from dicom_node.results.legend import LOOKS, Look, millimeters
from dicom_node.results.pictures import DASHES, GROUND, INK, QUIET, centers_of, draw_image, draw_outline
from dicom_node.results.planes import Plane, outline_of, planes_around
from dicom_node.simulation.lesion import SimulatedLesion
from dicom_node.simulation.looks import look_of, style_of
from dicom_node.study import PlannedStudy
from pipeline.case import Applicator
from pipeline.geometry import FloatArray
from pipeline.surface import Level

_SIDE_PX, _HEADER_PX, _FOOTER_PX, _DPI = 640, 64, 116, 120
_BAND = Look("Zone in some runs, not in all", "#3f9bff")
_PROBE = Look("Applicator", "#f2f4f7")


def picture_of(found: SimulatedLesion, study: PlannedStudy) -> NDArray[np.uint8]:
    """uint8 (rows, columns, 3)."""
    planes = _planes(found, study)
    width, height = _SIDE_PX * len(planes), _HEADER_PX + _SIDE_PX + _FOOTER_PX
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=GROUND)
    canvas = FigureCanvasAgg(figure)
    for number, plane in enumerate(planes):
        share = 1 / len(planes)
        axes = figure.add_axes((number * share + 0.002, _FOOTER_PX / height, share - 0.004, _SIDE_PX / height))
        _draw(axes, plane, found)
        middle, below = (number + 0.5) * share, 1 - 0.8 * _HEADER_PX / height
        figure.text(middle, below, f"{plane.name}, {plane.place}", color=INK, size=10, ha="center", va="center")
    top = 1 - 0.32 * _HEADER_PX / height
    figure.text(0.01, top, f"Lesion {found.lesion.lesion_id}", color=INK, size=13, weight="bold", va="center")
    figure.text(0.5, top, _headline(found), color=INK, size=11, ha="center", va="center")
    what = "Simulated, not seen" if study.has_baseline else "Simulated without the baseline scan"
    figure.text(0.99, top, what, color=INK, size=11, ha="right", va="center")
    figure.legend(
        handles=_legend(found),
        loc="center",
        bbox_to_anchor=(0.5, 0.64 * _FOOTER_PX / height),
        ncols=7,
        frameon=False,
        labelcolor=INK,
        fontsize=10,
        handlelength=2.4,
        columnspacing=2.2,
    )
    figure.text(0.5, 0.14 * _FOOTER_PX / height, RADIOLOGIST_DECIDES, color=QUIET, size=9, ha="center", va="center")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _headline(found: SimulatedLesion) -> str:
    counts = found.margins[0]
    volume = f"{counts.size.volume_ml[-1]:.1f} ml"
    least = f"minimal margin {millimeters(counts.minimal_margin_mm)}"
    return (
        f"{counts.edge.replace('-', '−')}: {volume}, {least}, required {millimeters(found.lesion.required_margin_mm)}"
    )


def _planes(found: SimulatedLesion, study: PlannedStudy) -> tuple[Plane, ...]:
    levels: dict[str, Level] = {"tumor": outline_of(found.lesion.tumor)}
    zone = found.zone
    for edge in zone.edges:
        levels[edge.name] = edge.level
    held: list[FloatArray] = [found.lesion.tumor.centroid_lps_mm[None], levels["tumor"].grid.corners_lps()]
    filled = [edge.mask for edge in zone.edges if not edge.mask.is_empty]
    if found.spread is not None and not found.spread.possible.is_empty:
        filled.append(found.spread.possible)
        levels["possible"] = outline_of(found.spread.possible)
        if not found.spread.certain.is_empty:
            levels["certain"] = outline_of(found.spread.certain)
    for mask in filled:
        points = mask.points_lps_mm()
        held.append(np.array([points.min(axis=0), points.max(axis=0)]))
    planes = planes_around(study.plan.baseline, study.plan.organ, levels, np.concatenate(held))
    return planes if study.has_baseline else tuple(replace(plane, window="") for plane in planes)


def _draw(axes: Axes, plane: Plane, found: SimulatedLesion) -> None:
    draw_image(axes, plane, scale=0.8)
    possible, certain = plane.signed_mm.get("possible"), plane.signed_mm.get("certain")
    if possible is not None and possible.max() > 0:
        band = possible if certain is None else np.minimum(possible, -certain)
        centers = centers_of(plane)
        if band.max() > 0:
            axes.contourf(centers, centers, band, levels=[0.0, np.inf], colors=[_BAND.color], alpha=0.28, zorder=2)
    for number, edge in reversed(list(enumerate(found.zone.edges))):
        color, scale = look_of(edge, number).color, 1.0 if number == 0 else 0.8
        draw_outline(axes, plane, edge.name, color, style=style_of(number), scale=scale)
    draw_outline(axes, plane, "tumor", LOOKS["tumor"].color, style=DASHES, scale=0.9)
    _draw_probes(axes, plane, found.lesion.applicators)


def _draw_probes(axes: Axes, plane: Plane, applicators: Sequence[Applicator]) -> None:
    """Shafts as seen from the side, whichever plane they lie in, with a dot at the tip."""
    halo = [Stroke(linewidth=3.0, foreground="black"), Normal()]
    for applicator in applicators:
        tip, entry = np.array(applicator.tip_lps_mm), np.array(applicator.entry_lps_mm)
        (x0, y0), (x1, y1) = plane.cut.in_picture(tip), plane.cut.in_picture(entry)
        axes.plot([x0, x1], [y0, y1], color=_PROBE.color, lw=1.3, alpha=0.9, path_effects=halo, zorder=4.5)
        axes.plot([x0], [y0], "o", color=_PROBE.color, ms=3.0, mec="black", mew=0.6, zorder=4.6)
    axes.set(xlim=(0, plane.side_mm), ylim=(plane.side_mm, 0))


def _legend(found: SimulatedLesion) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    for number, edge in enumerate(found.zone.edges):
        look = look_of(edge, number)
        label = f"{look.label}: the zone" if number == 0 else look.label
        width, style = (2.2 if number == 0 else 1.7), style_of(number)
        handles.append(Line2D([], [], color=look.color, lw=width, ls=style, label=label))
    tumor = LOOKS["tumor"]
    handles.append(Line2D([], [], color=tumor.color, lw=2.0, ls=DASHES, label=tumor.label))
    if found.spread is not None:
        handles.append(Patch(facecolor=_BAND.color, alpha=0.4, label=_BAND.label))
    handles.append(Line2D([], [], color=_PROBE.color, lw=1.5, marker="o", ms=3.5, label=_PROBE.label))
    return handles
