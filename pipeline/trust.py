"""Whether a registration may be trusted: expected error, folds, agreement of the two images around the lesion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.assessment import Reason, RegistrationQuality
from pipeline.geometry import FloatArray, Geometry
from pipeline.transform import Transform, resample, resample_distance
from pipeline.volume import Mask, Volume

#: Below these a registration is refused. Chosen between good pairs and pairs of two different patients, see
#: docs/decisions/0040-registration-gate.md.
LEAST_AGREEMENT = 0.8
LEAST_JACOBIAN = 0.5
MOST_EXPECTED_ERROR_MM = 4.0
_FLOOR_MM = 0.4  # what two halves of the same images share, and so cannot see in each other


def judge_registration(
    halves: tuple[Transform, Transform], joined: Transform, *, tumor_points_lps_mm: FloatArray, agreement: float
) -> RegistrationQuality:
    """The quality at the tumor's surface.

    halves: two registrations from disjoint halves of the samples, whose mean is `joined`; half their difference is
    the error that noise and missing texture leave in the mean. tumor_points_lps_mm: (n, 3) in the follow-up's frame.
    """
    apart = np.linalg.norm(halves[0](tumor_points_lps_mm) - halves[1](tumor_points_lps_mm), axis=1) / 2
    expected = float(np.hypot(_FLOOR_MM, 2.0 * apart.mean()))
    jacobian = float(joined.jacobian_determinants(tumor_points_lps_mm).min())
    reasons = []
    if agreement < LEAST_AGREEMENT:
        reasons.append(
            Reason(
                "registration_images_disagree",
                f"After registration the two scans agree too little around the lesion ({agreement:.2f}, at least "
                f"{LEAST_AGREEMENT:.2f} needed): check that plan and study belong to the same patient and organ.",
            )
        )
    if jacobian < LEAST_JACOBIAN:
        reasons.append(Reason("registration_folds", "The registration folds tissue onto itself near the lesion."))
    if expected > MOST_EXPECTED_ERROR_MM:
        reasons.append(
            Reason("registration_uncertain", f"The registration may be off by {expected:.1f} mm at the tumor.")
        )
    return RegistrationQuality(not reasons, expected, jacobian, tuple(reasons))


def agreement_around(
    followup: Volume, baseline: Volume, transform: Transform, *, zone: Mask, tumor: Mask, reach_mm: float = 40.0
) -> float:
    """Correlation of the two images within `reach_mm` of the lesion, lesion and zone left out, from -1 to 1.

    Both are smoothed by 2 mm. zone: in the follow-up's frame, tumor: in the baseline's. The share of the surroundings
    that the baseline does not show counts as disagreement.
    """
    box = followup.geometry.box_around(zone.points_lps_mm(), pad_mm=reach_mm)
    part = followup.crop(box)
    grid = part.geometry.resampled(np.maximum(part.geometry.spacing_mm, 2.0))
    same = Transform(grid.frame_uid, grid.frame_uid, np.eye(4))
    sigma = 2.0 / part.geometry.spacing_mm
    low, high = (-150.0, 250.0) if followup.quantity == "ct_hu" else (-np.inf, np.inf)
    fixed = np.clip(part.voxels.astype(np.float32), low, high)
    fixed = resample(Volume(ndimage.gaussian_filter(fixed, sigma), part.geometry, part.quantity), grid, same)
    moved = np.clip(resample(baseline, grid, transform), low, high)
    known = np.isfinite(moved) & np.isfinite(fixed)
    moved = ndimage.gaussian_filter(np.where(known, moved, 0.0), 2.0 / grid.spacing_mm)
    from_zone = _inside(zone, grid, same)
    from_tumor = _inside(tumor, grid, transform)
    wanted = ~(from_zone | from_tumor)
    use = wanted & known
    if use.sum() < 500 or not wanted.any():
        return 0.0
    a, b = fixed[use], moved[use]
    value = float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
    return float(value * np.sqrt(use.sum() / wanted.sum()))


def _inside(mask: Mask, grid: Geometry, mask_from_grid: Transform) -> NDArray[np.bool_]:
    """Voxels of the grid within 3 mm of the region."""
    return np.asarray(resample_distance(mask, grid, mask_from_grid) > -3.0)
