"""How a plan names a region: a segment, a structure, a NIfTI file, or a temperature map and its threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dicom_node.decode.schema import Node
from dicom_node.refusal import Refused

#: Between these lie boiling nitrogen (-196 °C) and the hottest tissue at an antenna; beyond them it is another unit.
_LEAST_C, _MOST_C = -210.0, 200.0


@dataclass(frozen=True)
class Threshold:
    """What of a temperature map is the region: the voxels at or beyond `value_c`, toward `side`."""

    side: Literal["at_most_c", "at_least_c"]
    value_c: float

    @property
    def sign(self) -> float:
        """The region is where ``sign * (temperature - value_c)`` is zero or more."""
        return -1.0 if self.side == "at_most_c" else 1.0


@dataclass(frozen=True)
class RegionRef:
    """Where a region is to be found. key: its path in plan.json, named in every refusal."""

    key: str
    sop_instance_uid: str = ""
    segment_number: int | None = None
    roi_number: int | None = None
    path: str | None = None
    label: int | None = None
    """Of a NIfTI label map; None takes a mask, of organ or vessels also all labels together."""
    threshold: Threshold | None = None


def region_ref(node: Node) -> RegionRef:
    """The region that a value of plan.json names. Raises Refused ``plan_invalid``, naming the key that is wrong."""
    if not isinstance(node.value, dict):
        raise node.wrong("must be an object")
    threshold = _threshold(node)
    of_threshold = () if threshold is None else (threshold.side,)
    if node.has("path"):
        node.object(required=("path",), optional=of_threshold or ("label",))
        label = node.child("label").integer(least=1) if node.has("label") else None
        return RegionRef(node.key, path=node.child("path").text(), label=label, threshold=threshold)
    if threshold is not None:
        node.object(required=("sop_instance_uid", threshold.side))
        return RegionRef(node.key, sop_instance_uid=node.child("sop_instance_uid").text(), threshold=threshold)
    if node.has("roi_number"):
        node.object(required=("sop_instance_uid", "roi_number"))
        number = node.child("roi_number").integer(least=0)
        return RegionRef(node.key, sop_instance_uid=node.child("sop_instance_uid").text(), roi_number=number)
    node.object(required=("sop_instance_uid", "segment_number"))
    number = node.child("segment_number").integer(least=1)
    return RegionRef(node.key, sop_instance_uid=node.child("sop_instance_uid").text(), segment_number=number)


def _threshold(node: Node) -> Threshold | None:
    if node.has("at_most_c") and node.has("at_least_c"):
        raise node.wrong("must have at_most_c or at_least_c, not both")
    side: Literal["at_most_c", "at_least_c"] = "at_most_c" if node.has("at_most_c") else "at_least_c"
    if not node.has(side):
        return None
    given = node.child(side)
    value = given.number()
    if not _LEAST_C <= value <= _MOST_C:
        raise Refused(
            "plan_invalid",
            f"plan.json: {given.key} must lie between {_LEAST_C:g} and {_MOST_C:g} °C; "
            f"{value:g} is probably in kelvin.",
        )
    return Threshold(side, value)
