"""A printed page that is written from the top down, in millimetres."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

WIDTH_MM, HEIGHT_MM, EDGE_MM = 210.0, 297.0, 16.0
INK, QUIET, LINE = "#16191d", "#5b6570", "#d5dae0"
POINT_MM = 25.4 / 72
LEADING = 1.42


class Page:
    """An A4 page that is written from the top down. y: millimetres from the top edge."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.y = EDGE_MM

    def text(self, x: float, text: str, size: float, *, y: float | None = None, **look: Any) -> None:
        """Text whose first line has its top at y, x millimetres from the left margin."""
        baseline = (self.y if y is None else y) + 0.8 * size * POINT_MM
        look = {"color": INK, "va": "baseline", **look}
        for line in text.split("\n"):
            place = ((EDGE_MM + x) / WIDTH_MM, 1 - baseline / HEIGHT_MM)
            self.figure.text(*place, line, size=size, parse_math=False, **look)
            baseline += size * POINT_MM * LEADING

    def paragraph(self, text: str, size: float, *, x: float = 0.0, **look: Any) -> None:
        """Wrapped text; moves down by its height."""
        across = self.width - x
        lines = textwrap.wrap(text, width=int(across / (size * POINT_MM * 0.535))) or [""]
        for line in lines:
            self.text(x, line, size, **look)
            self.y += size * POINT_MM * LEADING

    def rule(self) -> None:
        """A thin line across."""
        y = 1 - self.y / HEIGHT_MM
        ends = (EDGE_MM / WIDTH_MM, 1 - EDGE_MM / WIDTH_MM)
        self.figure.add_artist(Line2D(ends, (y, y), color=LINE, lw=0.7))

    def box(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """A filled rectangle; y is its top."""
        corner = ((EDGE_MM + x) / WIDTH_MM, 1 - (y + height) / HEIGHT_MM)
        self.figure.add_artist(Rectangle(corner, width / WIDTH_MM, height / HEIGHT_MM, color=color, lw=0))

    def axes(self, x: float, width: float, height: float) -> Any:
        """Axes with their top at y."""
        corner = ((EDGE_MM + x) / WIDTH_MM, 1 - (self.y + height) / HEIGHT_MM)
        return self.figure.add_axes((*corner, width / WIDTH_MM, height / HEIGHT_MM))

    @property
    def width(self) -> float:
        """Millimetres between the margins."""
        return WIDTH_MM - 2 * EDGE_MM

    @property
    def left_mm(self) -> float:
        """Millimetres left above the foot."""
        return HEIGHT_MM - EDGE_MM - 4.0 - self.y
