"""What a registration says of its own error, on images whose texture is known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.assessment import Reason, RegistrationQuality
from pipeline.both_ways import BothWays
from pipeline.geometry import FloatArray, upright_grid
from pipeline.registration_error import APART_SCALE, DOUBT, FLOOR_MM, RegistrationErrors, _bending, registration_errors
from pipeline.sampling import Box, extent_of, spline_grid
from pipeline.transform import SplineField, Transform
from pipeline.trust import MOST_EXPECTED_ERROR_MM, judge_registration, refused_together
from pipeline.volume import Mask, Volume
from pipeline.where import Where

GRID = upright_grid((60, 60, 60), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), "followup")
MIDDLE = np.array([59.0, 59.0, 59.0])
AROUND = Box(MIDDLE - 8.0, MIDDLE + 8.0)
RIM = MIDDLE + 18.0 * np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])


def scan(frame_uid: str, *, texture_hu: float, noise_hu: float = 10.0, seed: int = 0) -> Volume:
    """Blobs of some 12 mm, the same in every frame, under noise of its own."""
    grid = upright_grid(GRID.shape, GRID.spacing_mm, (0.0, 0.0, 0.0), frame_uid)
    x, y, z = np.moveaxis(grid.grid_lps(), -1, 0) * (2 * np.pi / 25.0)
    blobs = np.sin(x + 0.3 * y) * np.sin(y - 0.2 * z) * np.sin(z + 0.4 * x)
    noise = np.random.default_rng(seed).normal(0, noise_hu, GRID.shape)
    return Volume((60.0 + texture_hu * blobs + noise).astype(np.float32), grid, "ct_hu")


def ball(frame_uid: str, radius_mm: float) -> Mask:
    grid = upright_grid(GRID.shape, GRID.spacing_mm, (0.0, 0.0, 0.0), frame_uid)
    return Mask(np.linalg.norm(grid.grid_lps() - MIDDLE, axis=-1) < radius_mm, grid)


def still(box: Box, apart_mm: float = 0.0) -> BothWays:
    """Both ways of two scans that lie alike; the way back is off along x."""
    there = spline_grid(box, 20.0, "followup")
    back = spline_grid(box, 20.0, "baseline")
    off = np.zeros((3, *back.shape))
    off[0] = apart_mm
    return BothWays(
        Transform("baseline", "followup", np.eye(4), SplineField(np.zeros((3, *there.shape)), there)),
        Transform("followup", "baseline", np.eye(4), SplineField(off, back)),
    )


def errors(texture_hu: float, *, cut_mm: float = 15.0, apart_mm: float = 0.0, **more: float) -> RegistrationErrors:
    """The error of the identity, which is true, between two scans of the same texture."""
    followup = scan("followup", texture_hu=texture_hu, seed=1, **more)
    baseline = scan("baseline", texture_hu=texture_hu, seed=2, **more)
    where = Where(extent_of(GRID), (), ball("followup", cut_mm), ball("baseline", 8.0))
    return registration_errors(followup, baseline, still(extent_of(GRID), apart_mm), where=where, around=AROUND)


def expected_mm(found: RegistrationErrors, points: FloatArray = RIM) -> float:
    return float(found.expected_mm(points).mean())


def test_more_texture_and_less_noise_leave_less_error() -> None:
    rich, poor, noisy = errors(60.0), errors(15.0), errors(60.0, noise_hu=40.0)
    assert FLOOR_MM < expected_mm(rich) < expected_mm(noisy)
    assert expected_mm(rich) < expected_mm(poor)
    assert expected_mm(rich) < 1.0


def test_the_error_grows_with_the_hole_in_which_nothing_is_seen() -> None:
    in_middle = [expected_mm(errors(60.0, cut_mm=cut), MIDDLE[None]) for cut in (10.0, 20.0, 30.0)]
    assert in_middle[0] < in_middle[1] < in_middle[2]
    found = errors(60.0, cut_mm=30.0)
    assert expected_mm(found, MIDDLE[None]) > 1.3 * expected_mm(found, MIDDLE + np.array([[32.0, 0, 0], [0, -32.0, 0]]))


def test_both_ways_that_disagree_add_to_the_error() -> None:
    alike, apart = errors(60.0), errors(60.0, apart_mm=2.0)
    assert expected_mm(apart) ** 2 - expected_mm(alike) ** 2 == pytest.approx((APART_SCALE * 1.0) ** 2, rel=0.25)


def test_without_any_texture_the_registration_is_refused() -> None:
    """Two plain images agree wherever one lies: nothing may be claimed."""
    found = errors(0.0, noise_hu=0.0)
    assert expected_mm(found) > MOST_EXPECTED_ERROR_MM
    same = Transform("baseline", "followup", np.eye(4))
    quality = judge_registration(
        same, points_lps_mm=RIM, around=AROUND, expected_error_mm=found.expected_mm(RIM), agreement=0.9
    )
    assert not quality.accepted
    assert [r.code for r in quality.reasons] == ["registration_uncertain"]


@pytest.mark.parametrize(("expected", "said"), [(3.04, "off by 3.0 mm"), (2640.5, "off by more than 10 mm")])
def test_an_expected_error_is_told_as_far_as_it_means_something(expected: float, said: str) -> None:
    same = Transform("baseline", "followup", np.eye(4))
    quality = judge_registration(
        same, points_lps_mm=RIM, around=AROUND, expected_error_mm=np.full(len(RIM), expected), agreement=0.9
    )
    (reason,) = quality.reasons
    assert said in reason.text
    assert "more than the 2.2 mm allowed" in reason.text


@pytest.mark.parametrize("bad", ["agreement", "expected"])
def test_a_number_that_is_none_refuses(bad: str) -> None:
    same = Transform("baseline", "followup", np.eye(4))
    expected = np.full(len(RIM), np.nan if bad == "expected" else 0.5)
    agreement = np.nan if bad == "agreement" else 0.9
    quality = judge_registration(
        same, points_lps_mm=RIM, around=AROUND, expected_error_mm=expected, agreement=agreement
    )
    assert not quality.accepted
    assert len(quality.reasons) == 1


def test_the_same_input_gives_the_same_draws() -> None:
    one, two = errors(40.0), errors(40.0)
    assert np.array_equal(one.at(RIM), two.at(RIM))
    assert np.allclose(one.expected_mm(RIM) ** 2, (one.at(RIM) ** 2).sum(-1).mean(0))
    assert one.at(RIM).shape == (len(one.coefficients_mm), len(RIM), 3)


def test_stripes_hold_tissue_along_their_normal_and_where_they_are() -> None:
    """Sheets of 12 mm across z, in the right half of a long box: known is z alone, and there alone."""
    grid = upright_grid((40, 30, 70), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), "followup")
    x, _, z = np.moveaxis(grid.grid_lps(), -1, 0)
    stripes = 60.0 + np.where(x > 80.0, 60.0 * np.sin(z * 2 * np.pi / 24.0), 0.0)
    scans = [
        Volume(
            (stripes + np.random.default_rng(seed).normal(0, 5, grid.shape)).astype(np.float32),
            upright_grid(grid.shape, grid.spacing_mm, (0.0, 0.0, 0.0), frame),
            "ct_hu",
        )
        for seed, frame in enumerate(("followup", "baseline"))
    ]
    nothing = [Mask(np.zeros(grid.shape, bool), scan.geometry) for scan in scans]
    middle = np.array([70.0, 30.0, 40.0])
    found = registration_errors(
        *scans,
        still(extent_of(grid)),
        where=Where(extent_of(grid), (), nothing[0], nothing[1]),
        around=Box(middle - 30.0, middle + 30.0),
    )
    striped, plain = np.array([[112.0, 30.0, 40.0]]), np.array([[20.0, 30.0, 40.0]])
    sd = {name: found.at(points)[:, 0].std(0) for name, points in (("striped", striped), ("plain", plain))}
    assert sd["striped"][2] < 1.0
    assert sd["striped"][1] > 4.0 * sd["striped"][2]
    assert sd["plain"][2] > 4.0 * sd["striped"][2]
    assert sd["striped"][0] > 2.0 * sd["striped"][2]  # where the stripes end, x is known too


def test_bending_is_that_of_the_spline() -> None:
    """Nothing for what stretches evenly; for x^2 / 100 mm, 4e-4 / mm^2 times the volume that the points hold."""
    grid = spline_grid(Box(np.zeros(3), np.array([60.0, 90.0, 120.0])), 15.0, "f")
    points = grid.grid_lps()
    form = _bending(grid)
    for axis in range(3):
        even, bent = (points[..., axis] ** power for power in (1, 2))
        assert abs(even.ravel() @ form @ even.ravel()) < 1e-6
        inner = np.array(grid.shape)
        inner[2 - axis] -= 2  # second differences along this axis
        expected = (2 / 100) ** 2 * float(np.prod(inner)) * 15.0**3
        assert (bent / 100).ravel() @ form @ (bent / 100).ravel() == pytest.approx(expected)


def test_scans_that_agree_less_leave_more_doubt() -> None:
    found = errors(60.0)
    doubted = [expected_mm(found.doubted(agreement)) for agreement in (1.0, 0.98, 0.9, 0.6)]
    assert doubted[0] == pytest.approx(expected_mm(found))
    assert doubted[1] / doubted[0] == pytest.approx(0.98**-DOUBT)
    assert doubted == sorted(doubted)
    assert np.isfinite([expected_mm(found.doubted(none)) for none in (0.0, -0.3, float("nan"))]).all()


def test_what_speaks_against_the_pair_refuses_all_lesions_and_doubt_about_a_place_one() -> None:
    fine = RegistrationQuality(True, 0.5, 0.9)
    unsure = RegistrationQuality(False, 3.0, 0.9, (Reason("registration_uncertain", "So."),))
    for code in ("registration_images_disagree", "registration_distorts"):
        wrong = RegistrationQuality(False, 1.0, 0.4, (Reason(code, "So."),))
        found = refused_together([fine, wrong, unsure])
        assert not any(q.accepted for q in found)
        assert [q.reasons[-1].code for q in found] == [code] * 3
        assert [q.expected_error_mm for q in found] == [0.5, 1.0, 3.0]
    assert refused_together([fine, unsure]) == [fine, unsure]


def test_a_fold_beside_the_tumor_refuses() -> None:
    grid = spline_grid(AROUND.grown(30.0), 10.0, "followup")
    bent = np.zeros((3, *grid.shape))
    at = tuple(n // 2 for n in grid.shape)
    middle = grid.lps_of(at)
    for size, accepted in ((2.0, True), (40.0, False)):
        bent[(0, *at)] = size
        folded = Transform("baseline", "followup", np.eye(4), SplineField(bent.copy(), grid))
        quality = judge_registration(
            folded,
            points_lps_mm=middle + np.eye(3) * 35.0,  # where the bend has faded
            around=Box(middle - 20.0, middle + 20.0),
            expected_error_mm=np.full(3, 0.5),
            agreement=0.95,
        )
        assert quality.accepted == accepted
        assert [r.code for r in quality.reasons] == ([] if accepted else ["registration_distorts"])
        assert accepted or "folds near the lesion" in quality.reasons[0].text


def test_a_map_without_values_beside_the_tumor_refuses() -> None:
    grid = spline_grid(AROUND.grown(30.0), 10.0, "followup")
    torn = np.zeros((3, *grid.shape))
    at = tuple(n // 2 for n in grid.shape)
    torn[(0, *at)] = np.nan
    middle = grid.lps_of(at)
    quality = judge_registration(
        Transform("baseline", "followup", np.eye(4), SplineField(torn, grid)),
        points_lps_mm=middle + np.eye(3) * 35.0,
        around=Box(middle - 20.0, middle + 20.0),
        expected_error_mm=np.full(3, 0.5),
        agreement=0.95,
    )
    assert [r.code for r in quality.reasons] == ["registration_distorts"]
