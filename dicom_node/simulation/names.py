"""What the files of a lesion are called."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.simulate.zone import Edge


def file_names(lesion_ids: Sequence[str]) -> list[str]:
    """A name for each lesion that any file system takes and tells from the others'."""
    names: list[str] = []
    for lesion_id in lesion_ids:
        plain = re.sub(r"[^\w.+-]", "_", lesion_id, flags=re.ASCII)
        plain = re.sub(r"^[.-]", "_", plain)
        name, number = plain, 2
        while name.lower() in {other.lower() for other in names}:
            name, number = f"{plain}-{number}", number + 1
        names.append(name)
    return names


def edge_name(edge: Edge) -> str:
    """E.g. ``isotherm-20`` for -20 °C; what has no temperature by its own name."""
    return edge.name if edge.temperature_c is None else f"isotherm-{abs(edge.temperature_c):g}"
