"""Whether a registration may be trusted: expected error, folds, agreement of the two images around the lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.assessment import Reason, RegistrationQuality
from pipeline.geometry import FloatArray, Geometry
from pipeline.sampling import Box
from pipeline.transform import Transform, grown, identity, resample
from pipeline.volume import Mask, Volume

#: Beyond these a registration is refused. Same patient (real and made, other phase, other scanner): agreement 0.97 to
#: 0.99 where the images are fair, least Jacobian 0.90 to 1.0; two real patients: agreement 0.2 to 0.3; two made bodies
#: of one shape: agreement 0.68 to 0.93, but mostly Jacobian 2.0 and above or an expected error above 2.2 mm, where
#: nearly all good pairs have 0.5 to 1.9 mm. See docs/decisions/0040-registration-gate.md.
LEAST_AGREEMENT = 0.6
JACOBIAN_RANGE = (0.5, 1.8)
MOST_EXPECTED_ERROR_MM = 2.2
#: Beyond this an expected error only says that nothing was found; this project's own choice.
MEANINGFUL_MM = 10.0
#: What speaks against the pair of scans, not against one lesion's place.
OF_THE_PAIR = ("registration_images_disagree", "registration_distorts")
FINE_MM, COARSE_MM = 1.5, 10.0
REACH_MM = 40.0
FOLD_MM = 4.0  # how close the points lie at which folds are looked for
LEFT_OUT_MM = 3.0  # around tumors and zones


def judge_registration(
    joined: Transform, *, points_lps_mm: FloatArray, around: Box, expected_error_mm: FloatArray, agreement: float
) -> RegistrationQuality:
    """The quality near one lesion. points_lps_mm: (n, 3) of the tumor's surface on the follow-up; expected_error_mm:
    (n,); around: where on the follow-up the map must not fold."""
    expected = float(expected_error_mm.mean())
    jacobians = joined.jacobian_determinants(points_lps_mm)
    lattice = around.grid(FOLD_MM, joined.from_frame_uid).grid_lps()
    jacobian = float(np.minimum(jacobians.min(), joined.jacobian_determinants(lattice).min()))
    reasons = []
    # Written so that a number that is none refuses too.
    if not agreement >= LEAST_AGREEMENT:
        reasons.append(
            Reason(
                "registration_images_disagree",
                f"After registration the two scans agree too little around the lesion ({agreement:.2f}, at least "
                f"{LEAST_AGREEMENT:.2f} needed): check that plan and study belong to the same patient and organ.",
            )
        )
    if not (jacobian > 0 and jacobians.min() >= JACOBIAN_RANGE[0] and jacobians.max() <= JACOBIAN_RANGE[1]):
        what = (
            f"changes tissue volume at the tumor by factors of {jacobians.min():.2f} to {jacobians.max():.2f}"
            if jacobian > 0
            else f"folds near the lesion (least Jacobian {jacobian:.2f})"
        )
        text = f"The registration {what}, which tissue does not do: check that plan and study belong together."
        reasons.append(Reason("registration_distorts", text))
    if not expected <= MOST_EXPECTED_ERROR_MM:
        # Not "2.2 mm, more than 2.2 mm".
        digits = 2 if expected < MOST_EXPECTED_ERROR_MM + 0.1 else 1
        off = f"{expected:.{digits}f} mm" if expected <= MEANINGFUL_MM else f"more than {MEANINGFUL_MM:.0f} mm"
        text = (
            f"The registration may be off by {off} at the tumor, more than the {MOST_EXPECTED_ERROR_MM} mm allowed: "
            "check that plan and study belong together; thinner slices, less noise or a longer scan would help."
        )
        reasons.append(Reason("registration_uncertain", text))
    return RegistrationQuality(not reasons, expected, jacobian, tuple(reasons))


def refused_together(qualities: Sequence[RegistrationQuality]) -> list[RegistrationQuality]:
    """The qualities around all lesions, where one shows that the two scans do not belong together: none is accepted
    then. Only how uncertain a registration is may differ from lesion to lesion."""
    wrong = tuple(dict.fromkeys(r for q in qualities for r in q.reasons if r.code in OF_THE_PAIR))
    if not wrong:
        return list(qualities)
    return [replace(q, accepted=False, reasons=tuple(dict.fromkeys((*q.reasons, *wrong)))) for q in qualities]


def worst_of(qualities: list[RegistrationQuality]) -> RegistrationQuality:
    """What is said of the whole study: accepted only if all are, with the largest error and the least Jacobian."""
    reasons = tuple(dict.fromkeys(r for q in qualities for r in q.reasons))
    return RegistrationQuality(
        all(q.accepted for q in qualities),
        max((q.expected_error_mm for q in qualities if q.expected_error_mm is not None), default=None),
        min((q.minimum_jacobian for q in qualities if q.minimum_jacobian is not None), default=None),
        reasons,
    )


def agreement_around(
    followup: Volume,
    baseline: Volume,
    transform: Transform,
    *,
    near: Box,
    zone: Mask,
    tumor: Mask,
) -> float:
    """Correlation of the two images' detail within `REACH_MM` of a lesion, tumors and zones left out, from -1 to 1.

    Detail is what is left at 1.5 mm of smoothing after the average over 10 mm is taken off: vessels and edges, not the
    body's gross shape, which strangers share. near: the lesion's box and zone: all zones, in the follow-up's frame;
    tumor: all tumors, in the baseline's. Surroundings that the baseline does not show count as disagreement.
    """
    part = followup.crop(followup.geometry.box_around(near.corners(), pad_mm=REACH_MM))
    grid = part.geometry.resampled(np.maximum(part.geometry.spacing_mm, 2.0))
    same = identity(grid.frame_uid)
    low, high = (-50.0, 250.0) if followup.quantity == "ct_hu" else (-np.inf, np.inf)
    sharp = ndimage.gaussian_filter(
        np.clip(part.voxels.astype(np.float32), low, high), FINE_MM / part.geometry.spacing_mm
    )
    fixed = resample(Volume(sharp, part.geometry, part.quantity), grid, same)
    moved = np.clip(resample(baseline, grid, transform), low, high)
    known = np.isfinite(moved) & np.isfinite(fixed)
    moved = ndimage.gaussian_filter(np.where(known, moved, 0.0), FINE_MM / grid.spacing_mm)
    left_out = grown([zone], grid, same, by_mm=LEFT_OUT_MM) | grown([tumor], grid, transform, by_mm=LEFT_OUT_MM)
    wanted = ~left_out.voxels
    use = wanted & known
    if use.sum() < 500:
        return 0.0
    a, b = _detail(fixed, use, grid)[use], _detail(moved, use, grid)[use]
    value = float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
    return float(value * np.sqrt(use.sum() / wanted.sum()))


def _detail(values: NDArray[np.float32], use: NDArray[np.bool_], grid: Geometry) -> NDArray[np.float32]:
    """The values minus their average over `COARSE_MM`, both over `use` alone."""
    weight = ndimage.gaussian_filter(use.astype(np.float32), COARSE_MM / grid.spacing_mm)
    average = ndimage.gaussian_filter(np.where(use, values, 0.0), COARSE_MM / grid.spacing_mm)
    return np.asarray(values - average / np.maximum(weight, 1e-3), np.float32)
