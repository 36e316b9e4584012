"""Whether the plan's organ mask can be what it says: at a wrong edge of it too little margin would be asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.assessment import Reason
from pipeline.case import Lesion, Plan
from pipeline.organ import FoundOrgan, find_organ
from pipeline.organ_edge import closed_organ
from pipeline.surface import level_of_mask
from pipeline.transform import sample_distance
from pipeline.volume import Mask

#: A tumor of 1 cm that touches the capsule has half of its surface within 5 mm of it. This and what follows are this
#: project's own choice.
MOST_AT_EDGE = 0.75
#: Drawings of a capsule differ by less than this, or than a slice; a tumor farther outside its organ contradicts it.
OUTSIDE_MM = 3.0
MOST_OUTSIDE = 0.02
#: A mask that ends farther from the tumor than this is not around it.
ELSEWHERE_MM = 10.0


def organ_of(plan: Plan) -> tuple[FoundOrgan, Plan]:
    """The organ to go by, and the plan without its organ mask where that does not fit a lesion: then it lowers no
    required margin, of no lesion, and guides only where it lies around the tumor and nothing better is found."""
    if plan.organ_mask is None:
        found = find_organ(plan.baseline, plan.lesions[0].tumor, organ=plan.organ)
        return replace(found, note=Reason("organ_mask_not_in_plan", f"Organ mask: {found.how}.")), plan
    for lesion in plan.lesions:
        if (doubt := _doubt(plan, lesion, plan.organ_mask)) is not None:
            found = find_organ(plan.baseline, plan.lesions[0].tumor, organ=plan.organ)
            if found.mask is None and _is_near(plan.organ_mask, lesion.tumor):
                found = FoundOrgan(plan.organ_mask, "the plan's all the same, for want of a better one")
            text = f"{doubt} So the full margin is required everywhere; check the mask. Organ mask used: {found.how}."
            return replace(found, note=Reason("organ_mask_doubted", text)), replace(plan, organ_mask=None)
    return FoundOrgan(plan.organ_mask, "given by the plan"), plan


def _doubt(plan: Plan, lesion: Lesion, organ: Mask) -> str | None:
    """Why the mask cannot be right at a lesion, as a sentence; None where it may be."""
    surface = level_of_mask(lesion.tumor).surface()
    points, required, name = surface.vertices_lps_mm, lesion.required_margin_mm, lesion.lesion_id
    others = [x.tumor for x in plan.lesions if x is not lesion]
    slack = max(OUTSIDE_MM, *(float(mask.geometry.spacing_mm.max()) for mask in (organ, lesion.tumor)))
    reach = max(2 * slack, required)
    alone = closed_organ(organ, others, points, scan=plan.baseline.geometry, reach_mm=reach)
    depth = np.full(len(points), -reach) if alone.is_empty else sample_distance(alone, points)
    outside = surface.area_fraction(depth < -slack)
    if outside > MOST_OUTSIDE:
        return f"By the plan's organ mask {outside:.0%} of the surface of {name}'s tumor lies outside the organ."
    at_edge = surface.area_fraction(depth < required)
    if required > 0 and at_edge > MOST_AT_EDGE:
        return (
            f"By the plan's organ mask {at_edge:.0%} of the surface of {name}'s tumor lies nearer to the organ's edge "
            "than the required margin: a mask that hugs the tumor is no capsule."
        )
    return None


def _is_near(organ: Mask, tumor: Mask) -> bool:
    """Whether any of the tumor lies within 10 mm of the organ."""
    return bool(sample_distance(organ, tumor.points_lps_mm()).max() > -ELSEWHERE_MM)
