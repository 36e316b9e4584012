"""Pictures of a lesion for people: one plane each, with outlines, letters, scale, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray
from PIL import Image

from dicom_node.notice import RADIOLOGIST_DECIDES
from dicom_node.results.focus import Focus, focus_of
from dicom_node.results.legend import LOOKS, Region
from dicom_node.results.planes import Plane
from pipeline.assessment import LesionAssessment

_SIDE_PX, _HEADER_PX, _FOOTER_PX = 840, 52, 84
_DPI = 120
DASHES = (0, (3, 1.6))
GROUND, INK, QUIET = "#0d0f12", "#f2f4f7", "#a8b0ba"


@dataclass(frozen=True, eq=False)
class Picture:
    """One rendered plane. name: as the file is called; rgb: uint8 (rows, columns, 3)."""

    name: str
    plane: Plane
    rgb: NDArray[np.uint8]


def pictures_of(lesion: LesionAssessment, number: int, planes: Sequence[Plane], days: int) -> tuple[Picture, ...]:
    """The pictures of the n-th lesion, one a plane."""
    return tuple(Picture(f"lesion-{number}-{plane.name}", plane, _rendered(lesion, plane, days)) for plane in planes)


def write_pictures(pictures: Sequence[Picture], folder: Path) -> None:
    """Writes `images/*.png`."""
    folder.mkdir(exist_ok=True)
    for picture in pictures:
        save_picture(picture.rgb, folder / f"{picture.name}.png")


def save_picture(rgb: NDArray[np.uint8], path: Path) -> None:
    """Writes one PNG."""
    Image.fromarray(rgb).save(path, compress_level=2)


def draw(axes: Axes, plane: Plane, lesion: LesionAssessment, *, scale: float = 1.0) -> None:
    """Draws image, outlines, letters, scale bar and the point to look at. scale: of line widths and letters."""
    draw_image(axes, plane, scale=scale)
    _draw_regions(axes, plane, scale)
    focus = focus_of(lesion)
    if focus is not None:
        _draw_mark(axes, plane, focus, scale)


def draw_image(axes: Axes, plane: Plane, *, scale: float = 1.0) -> None:
    """Draws image, letters, window and scale bar."""
    side = plane.side_mm
    rgb = np.broadcast_to(plane.gray[..., None], (*plane.gray.shape, 3))
    axes.imshow(rgb, extent=(0, side, side, 0), interpolation="bilinear", zorder=0)
    halo = [Stroke(linewidth=2.6 * scale, foreground="black"), Normal()]
    letters: dict[str, Any] = {
        "size": 12 * scale,
        "color": INK,
        "weight": "bold",
        "path_effects": halo,
        "clip_on": True,
        "zorder": 5,
    }
    left, right, top, bottom = tuple(plane.letters)
    rim = 0.022 * side
    axes.text(rim, side / 2, left, ha="left", va="center", **letters)
    axes.text(side - rim, side / 2, right, ha="right", va="center", **letters)
    axes.text(side / 2, rim, top, ha="center", va="top", **letters)
    axes.text(side / 2, side - rim, bottom, ha="center", va="bottom", **letters)
    window = {**letters, "size": 8 * scale, "weight": "normal"}
    axes.text(rim, side - rim, plane.window, ha="left", va="bottom", **window)
    _draw_scale(axes, side, scale)
    axes.set(xlim=(0, side), ylim=(side, 0), aspect="equal")
    axes.set_axis_off()


def draw_outline(axes: Axes, plane: Plane, name: str, color: str, *, style: Any = "solid", scale: float = 1.0) -> None:
    """Draws the edge of one of the plane's regions, where it is seen in the plane."""
    signed = plane.signed_mm.get(name)
    if signed is None or not signed.max() > 0 > signed.min():
        return
    centers = centers_of(plane)
    # a dark line below the colored one keeps it visible on bright and dark tissue alike
    dark = {"colors": "black", "linewidths": 3.4 * scale, "alpha": 0.55, "zorder": 3}
    bright = {"colors": color, "linewidths": 1.9 * scale, "linestyles": [style], "zorder": 4}
    for look in (dark, bright):
        axes.contour(centers, centers, signed, levels=[0.0], **look)


def centers_of(plane: Plane) -> NDArray[np.float64]:
    """(m,) millimetres from the upper left corner to the middle of each value of an outline, both ways."""
    pixels = next(iter(plane.signed_mm.values())).shape[0]
    return np.asarray((np.arange(pixels) + 0.5) * (plane.side_mm / pixels))


def legend_handles(lesion: LesionAssessment, scale: float = 1.0) -> list[Line2D | Patch]:
    """The signs of the regions that this lesion has."""
    zone, tumor, uncovered = (LOOKS[name] for name in ("zone", "tumor", "uncovered"))
    handles: list[Line2D | Patch] = []
    if lesion.zone is not None and not lesion.zone.is_empty:
        handles.append(Line2D([], [], color=zone.color, lw=2.2 * scale, label=zone.label))
    if lesion.tumor is not None and not lesion.tumor.is_empty:
        handles.append(Line2D([], [], color=tumor.color, lw=2.2 * scale, ls=DASHES, label=tumor.label))
    if lesion.uncovered is not None and not lesion.uncovered.is_empty:
        handles.append(Patch(facecolor=uncovered.color, alpha=0.75, label=uncovered.label))
    return handles


def _draw_regions(axes: Axes, plane: Plane, scale: float) -> None:
    uncovered = plane.signed_mm.get("uncovered")
    if uncovered is not None and uncovered.max() > 0:
        centers, color = centers_of(plane), LOOKS["uncovered"].color
        axes.contourf(centers, centers, uncovered, levels=[0.0, np.inf], colors=[color], alpha=0.62, zorder=2)
    styles: dict[Region, Any] = {"zone": "solid", "tumor": DASHES}
    for region, style in styles.items():
        draw_outline(axes, plane, region, LOOKS[region].color, style=style, scale=scale)


def _draw_scale(axes: Axes, side: float, scale: float) -> None:
    length = 10.0 if side < 60 else 20.0 if side < 160 else 50.0
    x, y = side * 0.955, side * 0.94
    for color, width in (("black", 5.0), (INK, 2.4)):
        axes.plot([x - length, x], [y, y], color=color, lw=width * scale, solid_capstyle="butt", zorder=6)
    halo = [Stroke(linewidth=2.4 * scale, foreground="black"), Normal()]
    label = f"{length:.0f} mm"
    axes.text(
        x - length / 2,
        y - side * 0.014,
        label,
        ha="center",
        va="bottom",
        size=9 * scale,
        color=INK,
        path_effects=halo,
        zorder=6,
    )


def _draw_mark(axes: Axes, plane: Plane, focus: Focus, scale: float) -> None:
    """A ring around the point to look at, its label above or below it, outward and inside the picture."""
    if plane.marked_mm is None:
        return
    point, side = np.array(plane.marked_mm), plane.side_mm
    radius = max(focus.radius_mm or 0.0, 0.0125 * side)
    for color, width in (("black", 3.6), ("white", 1.6)):
        axes.add_patch(Circle(tuple(point), radius, fill=False, ec=color, lw=width * scale, zorder=7))
    right, down = np.sign(point - side / 2 + (0.0, -0.04 * side))  # upward when in doubt
    place = point + np.array([0.1 * side * right, (0.16 * side + radius) * down])
    # inside the picture, clear of the letters, the window and the scale bar
    place = np.clip(place, (0.25 * side, 0.12 * side), (0.75 * side, 0.8 * side))
    axes.annotate(
        focus.label,
        tuple(point + radius * (place - point) / max(float(np.hypot(*(place - point))), 1e-6)),
        multialignment="center",
        xytext=tuple(place),
        ha="center",
        va="center",
        size=12 * scale,
        weight="bold",
        color="white",
        bbox={"boxstyle": "round,pad=0.3", "fc": "black", "ec": "white", "lw": 0.8 * scale, "alpha": 0.85},
        arrowprops={
            "arrowstyle": "-",
            "color": "white",
            "lw": 1.3 * scale,
            "shrinkB": 0,
            "path_effects": [Stroke(linewidth=3.2 * scale, foreground="black"), Normal()],
        },
        zorder=8,
    )


def _rendered(lesion: LesionAssessment, plane: Plane, days: int) -> NDArray[np.uint8]:
    height = _HEADER_PX + _SIDE_PX + _FOOTER_PX
    figure = Figure(figsize=(_SIDE_PX / _DPI, height / _DPI), dpi=_DPI, facecolor=GROUND)
    canvas = FigureCanvasAgg(figure)
    draw(figure.add_axes((0, _FOOTER_PX / height, 1, _SIDE_PX / height)), plane, lesion)
    top = 1 - _HEADER_PX / height / 2
    figure.text(0.022, top, f"Lesion {lesion.lesion_id}", color=INK, size=13, weight="bold", va="center")
    figure.text(0.5, top, f"{plane.name}, {plane.place}", color=INK, size=11, ha="center", va="center")
    figure.text(0.978, top, f"{days} days after ablation", color=INK, size=11, ha="right", va="center")
    handles = legend_handles(lesion)
    if handles:
        figure.legend(
            handles=handles,
            loc="center",
            bbox_to_anchor=(0.5, 0.66 * _FOOTER_PX / height),
            ncols=3,
            frameon=False,
            labelcolor=INK,
            fontsize=10.5,
            handlelength=2.4,
            columnspacing=2.6,
        )
    figure.text(0.5, 0.24 * _FOOTER_PX / height, RADIOLOGIST_DECIDES, color=QUIET, size=9, ha="center", va="center")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
