"""How the edges of simulated zones are called and drawn."""

from __future__ import annotations

from typing import Any

from dicom_node.results.legend import LOOKS, Look
from pipeline.simulate.zone import Edge

#: The edge that counts has the color of an ablation zone; the others differ by their dashes too.
_OTHERS = ("#e6f7ff", "#c79bff", "#7fe0c8")
_STYLES: tuple[Any, ...] = ((0, (1, 1.3)), (0, (6, 1.4, 1, 1.4)), (0, (9, 2)))


def look_of(edge: Edge, number: int) -> Look:
    """The name and color of a zone's n-th edge, the one that counts being the first."""
    color = LOOKS["zone"].color if number == 0 else _OTHERS[(number - 1) % len(_OTHERS)]
    return Look(edge.name.replace("-", "−"), color)


def style_of(number: int) -> Any:
    """The dashes of a zone's n-th edge, as matplotlib takes them."""
    return "solid" if number == 0 else _STYLES[(number - 1) % len(_STYLES)]
