"""The heat equation through a protocol: energy, symmetry, and a slow obvious second way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.case import Applicator, ProtocolPhase
from pipeline.geometry import upright_grid
from pipeline.probe import CryoProbe
from pipeline.simulate.dose import Dose
from pipeline.simulate.heat import Course, Drive, HeatSettings, Interval, run
from pipeline.simulate.lattice import Lattice
from pipeline.simulate.placement import active_line
from pipeline.simulate.schedule import intervals_of
from pipeline.simulate.sinks import Line, beside
from pipeline.simulate.tissue import Tissue
from pipeline.simulate.tissues import FAT, GAS, GEL, LIVER, TUMOR, VESSEL, heated

COLD = Drive(-150.0, 1800.0, 25.0)
BLOODLESS = replace(LIVER, perfusion_w_m3k=0.0)
PROBE = CryoProbe("argon", 1.2, 16.0, 0.0, -150.0, 1850.0, 25.0, 20.0, "made")
Labels = NDArray[np.uint8]


def lattice_of(
    tissues: tuple[Tissue, ...], labels: Labels | int = 24, spacing_mm: float = 2.0, *, insulated: bool = False
) -> Lattice:
    """Cells around the origin; of one tissue where only their number along each side is given."""
    labels = np.zeros((labels,) * 3, np.uint8) if isinstance(labels, int) else labels
    first = -(np.array(labels.shape[::-1]) - 1) * spacing_mm / 2
    return Lattice(upright_grid(labels.shape, (spacing_mm,) * 3, first, "made"), labels, tissues, insulated)


def three_labels() -> Labels:
    labels = np.zeros((24, 24, 24), np.uint8)
    labels[:, 15:] = 1
    labels[8:14, 9:13, 10:16] = 2
    return labels


OBLIQUE = Line((-5.0, 1.0, -10.0), (-2.0, 5.0, 11.0), 0.75)
UPRIGHT = Line((0.6, -0.3, -10.0), (0.6, -0.3, 10.0), 0.75)


def coldest_c(course: Course) -> NDArray[np.float32]:
    return course.lattice.by_tissue(course.least_enthalpy[-1], "temperature_of")


def volume_ml(course: Course, celsius: float) -> float:
    """Inside an isotherm of θ, cells at its edge in part."""
    law, lattice = course.lattice.laws_of_tissues[0], course.lattice
    depth = float(law.potential_of(celsius)) - lattice.by_tissue(course.least_enthalpy[-1], "potential_from")
    width = np.sum([np.abs(g) for g in np.gradient(depth)], axis=0)
    return float(np.clip(0.5 + depth / np.maximum(width, 1e-6), 0, 1).sum()) * lattice.geometry.voxel_volume_mm3 / 1000


@pytest.mark.parametrize("labels", [24, three_labels()], ids=["uniform", "three tissues"])
def test_what_the_probes_draw_is_what_the_tissue_loses(labels: Labels | int) -> None:
    tissues = tuple(replace(tissue, perfusion_w_m3k=0.0) for tissue in (LIVER, FAT, TUMOR))
    lattice = lattice_of(tissues, labels, insulated=True)
    warm = Drive(30.0, 1800.0, 25.0)
    protocol = [Interval(240, (COLD, None)), Interval(90, (warm, COLD)), Interval(120, (None, None))]
    course = run(lattice, [OBLIQUE, Line((7.0, -3.0, -9.0), (5.0, -2.0, 9.0), 1.2)], protocol)
    lost_j = -float(course.enthalpy.astype(float).sum()) * lattice.spacing_m**3
    assert course.drawn_j > 2000
    assert lost_j == pytest.approx(course.drawn_j, rel=1e-3)


def test_labels_and_a_drawn_flux_agree_with_a_slow_obvious_way() -> None:
    """Explicit steps in numpy, with differences of θ inside a tissue, and of T times the harmonic mean of the
    conductivities across two."""
    labels = np.zeros((5, 12, 12), np.uint8)
    labels[:, 6:] = 1
    labels[:, 2:5, 7:] = 2
    tissues = tuple(replace(tissue, perfusion_w_m3k=0.0) for tissue in (LIVER, FAT, TUMOR))
    lattice = lattice_of(tissues, labels, insulated=True)
    line, seconds, flux_w_m = Line((-1.0, 0.5, -5.0), (-1.0, 0.5, 5.0), 0.75), 60.0, 500.0
    course = run(lattice, [line], [Interval(seconds, (Drive(flux_w_m=flux_w_m),))])

    points = lattice.geometry.grid_lps()
    away2 = ((points[..., :2] - (-1.0, 0.5)) ** 2).sum(-1)
    share = np.exp(-away2 / (2 * 1.6**2))
    share /= share.sum(axis=(1, 2), keepdims=True)
    sink = flux_w_m * share / lattice.spacing_m**2
    wanted = np.zeros(labels.shape, np.float32)
    for _ in range(round(seconds / 0.05)):
        theta, celsius = (lattice.by_tissue(wanted, of).astype(float) for of in ("potential_from", "temperature_of"))
        k = np.empty(labels.shape)
        for n, tissue in enumerate(tissues):
            pieces = np.array(tissue.conductivity_w_mk)[np.searchsorted(tissue.knots_c, celsius, side="right")]
            k[labels == n] = pieces[labels == n]
        rate = -sink
        for axis in range(3):
            a, b = [slice(None)] * 3, [slice(None)] * 3
            a[axis], b[axis] = slice(None, -1), slice(1, None)
            near, far = tuple(a), tuple(b)
            across = 2 * k[near] * k[far] / (k[near] + k[far]) * (celsius[far] - celsius[near])
            flux = np.where(labels[near] == labels[far], theta[far] - theta[near], across) / lattice.spacing_m**2
            rate[near] += flux
            rate[far] -= flux
        wanted = (wanted + 0.05 * rate).astype(np.float32)
    found, expected = coldest_c(course), lattice.by_tissue(wanted, "temperature_of")
    assert expected.min() < -15
    # The kernel of the product is a ball cut at three standard deviations; the steps differ as well.
    assert np.abs(found - expected).max() < 0.02 * float(np.ptp(expected))


def test_one_material_under_two_labels_is_one_material() -> None:
    """Exactly with one conductivity; where that jumps at the edge of the ice, faces of both kinds agree closely."""
    halves = np.zeros((20, 20, 20), np.uint8)
    halves[:, :, 10:] = 1
    plain = Tissue("plain", (-290.0, -280.0), (0.5,) * 3, (3.6e6,) * 3, -280.0, -290.0, 2e4)
    line = Line((0.5, 0.4, -7.0), (0.3, -0.2, 7.0), 0.75)
    protocol = [Interval(120, (COLD,))]
    one, two = (run(lattice_of((plain, plain), labels), [line], protocol) for labels in (20, halves))
    assert np.abs(coldest_c(one) - coldest_c(two)).max() < 0.01
    frozen = [run(lattice_of((LIVER, LIVER), labels), [line], [Interval(300, (COLD,))]) for labels in (20, halves)]
    volumes = [volume_ml(course, -1.0) for course in frozen]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.003)


@pytest.mark.parametrize("spacing_mm", [1.0, 2.0])
def test_volumes_hardly_depend_on_where_the_cells_lie(spacing_mm: float) -> None:
    lattice = lattice_of((LIVER,), round(48 / spacing_mm), spacing_mm)
    volumes = []
    for shift in ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.27, -0.4, 0.13)):
        x, y, z = (float(v) * spacing_mm for v in shift)
        line = Line((x, y, z - 10.0), (x, y, z + 10.0), 0.75)
        course = run(lattice, [line], [Interval(300, (COLD,))])
        volumes.append([volume_ml(course, c) for c in (0.0, -20.0)])
    spread = np.ptp(volumes, axis=0) / np.mean(volumes, axis=0)
    assert (spread < (0.01 if spacing_mm == 1.0 else 0.04)).all()


def test_turned_and_mirrored_probes_make_turned_and_mirrored_zones() -> None:
    lattice = lattice_of((LIVER,))
    first = coldest_c(run(lattice, [OBLIQUE], [Interval(240, (COLD,))]))

    def moved(order: tuple[int, int, int], sign: tuple[int, int, int]) -> Line:
        ends = [np.array(p)[list(order)] * sign for p in (OBLIQUE.start_lps_mm, OBLIQUE.end_lps_mm)]
        return Line(tuple(map(float, ends[0])), tuple(map(float, ends[1])), OBLIQUE.radius_mm)  # type: ignore[arg-type]

    mirrored = coldest_c(run(lattice, [moved((0, 1, 2), (-1, 1, 1))], [Interval(240, (COLD,))]))
    assert np.abs(mirrored[:, :, ::-1] - first).max() < 0.02
    turned = coldest_c(run(lattice, [moved((2, 1, 0), (1, 1, 1))], [Interval(240, (COLD,))]))
    assert np.abs(turned.transpose(2, 1, 0) - first).max() < 0.02


def test_a_probe_across_the_grid_freezes_as_much_as_one_along_it() -> None:
    lattice = lattice_of((LIVER,), 44, 1.0)
    axis = np.array([1.0, 2.0, 4.0]) / np.sqrt(21)
    across = Line(tuple(-9 * axis), tuple(9 * axis), 0.75)  # type: ignore[arg-type]
    along = Line((0.2, 0.1, -9.0), (0.2, 0.1, 9.0), 0.75)
    courses = [run(lattice, [line], [Interval(300, (COLD,))]) for line in (along, across)]
    for celsius in (0.0, -20.0):
        volumes = [volume_ml(course, celsius) for course in courses]
        assert volumes[1] == pytest.approx(volumes[0], rel=0.01)


def test_two_halves_of_a_probe_are_the_probe() -> None:
    lattice = lattice_of((LIVER,))
    middle = tuple(np.mean([UPRIGHT.start_lps_mm, UPRIGHT.end_lps_mm], axis=0))
    halves = [Line(UPRIGHT.start_lps_mm, middle, 0.75), Line(middle, UPRIGHT.end_lps_mm, 0.75)]  # type: ignore[arg-type]
    whole = run(lattice, [UPRIGHT], [Interval(240, (COLD,))])
    parts = run(lattice, halves, [Interval(240, (COLD, COLD))])
    assert np.abs(coldest_c(whole) - coldest_c(parts)).max() < 0.1


def test_blood_flow_shrinks_the_ice() -> None:
    volumes = [
        volume_ml(run(lattice_of((replace(LIVER, perfusion_w_m3k=w),)), [UPRIGHT], [Interval(600, (COLD,))]), 0.0)
        for w in (0.0, 2e4, 6e4, 2e5)
    ]
    assert volumes == sorted(volumes, reverse=True)
    assert volumes[-1] < 0.8 * volumes[0]


def test_stasis_makes_the_second_freeze_larger() -> None:
    protocol = [Interval(300, (COLD,), freezes=True), Interval(240, (None,)), Interval(300, (COLD,), freezes=True)]
    found = {}
    for stasis in (True, False):
        course = run(lattice_of((LIVER,)), [UPRIGHT], protocol, HeatSettings(stasis=stasis))
        first, second = (replace(course, least_enthalpy=(least,)) for least in course.least_enthalpy)
        found[stasis] = volume_ml(first, 0.0), volume_ml(second, 0.0)
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-3)
    assert found[True][1] > 1.01 * found[False][1] >= found[False][0]
    assert found[True][1] > 1.04 * found[True][0]


def test_a_cycle_ends_where_the_next_freezing_begins() -> None:
    freeze, thaw = Interval(60, (COLD,), freezes=True), Interval(30, (None,))
    assert len(run(lattice_of((LIVER,)), [UPRIGHT], [freeze]).least_enthalpy) == 1
    assert len(run(lattice_of((LIVER,)), [UPRIGHT], [freeze, thaw]).least_enthalpy) == 1
    course = run(lattice_of((LIVER,)), [UPRIGHT], [freeze, thaw, freeze, thaw, freeze])
    assert len(course.least_enthalpy) == 3
    for before, after in zip(course.least_enthalpy, course.least_enthalpy[1:], strict=False):
        assert (after <= before).all()


def test_an_actively_warmed_probe_thaws_faster_than_one_switched_off() -> None:
    still = []
    for drive in (None, Drive(30.0, 1800.0, 5.0)):
        course = run(lattice_of((LIVER,)), [UPRIGHT], [Interval(300, (COLD,), freezes=True), Interval(180, (drive,))])
        still.append(float((course.lattice.by_tissue(course.enthalpy, "temperature_of") < -1).sum()))
    assert still[1] < 0.8 * still[0]


def test_ice_keeps_off_a_large_vessel() -> None:
    """Kept at body temperature, it cools nothing and nothing behind it freezes as far."""
    labels = np.zeros((24, 24, 24), np.uint8)
    labels[:, :, 15:18] = 1
    protocol = [Interval(480, (COLD,))]
    with_vessel = run(lattice_of((LIVER, VESSEL), labels), [UPRIGHT], protocol)
    without = run(lattice_of((LIVER, VESSEL)), [UPRIGHT], protocol)
    cold, before = coldest_c(with_vessel), coldest_c(without)
    assert (cold[labels == 1] == 37.0).all()
    assert (before[:, :, 14] < 0).any()
    assert (cold[:, :, 18:] > 36).all()
    assert (cold[:, :, 14] > before[:, :, 14])[12, 8:16].all()
    assert (cold >= before - 0.2).all()


def test_weaker_and_warmer_probes_freeze_less() -> None:
    drives = [COLD, Drive(-150.0, 900.0, 25.0), Drive(-120.0, 1800.0, 25.0), Drive(-150.0, 1800.0, 120.0)]
    volumes = [volume_ml(run(lattice_of((LIVER,)), [UPRIGHT], [Interval(300, (d,))]), -20.0) for d in drives]
    assert max(volumes[1:]) < 0.97 * volumes[0]


def test_nothing_happens_without_a_drive() -> None:
    course = run(lattice_of((LIVER,)), [UPRIGHT], [Interval(100, (None,))])
    assert np.abs(coldest_c(course) - 37).max() < 1e-3
    assert course.drawn_j == 0.0
    assert course.dose is None


def test_intervals_must_drive_every_probe() -> None:
    with pytest.raises(ValueError, match="drives 2 probes; there are 1"):
        run(lattice_of((LIVER,)), [UPRIGHT], [Interval(10, (COLD, COLD))])


ANTENNA = Line((0.5, 0.4, -10.0), (0.5, 0.4, 10.0), 0.9, reach_mm=15.0)


def heated_course(tissue: Tissue, power_w: float, seconds: float, limit_c: float | None = None) -> Course:
    protocol = [Interval(seconds, (None,), (power_w,), limit_c)]
    return run(lattice_of((heated(tissue),), 26), [ANTENNA], protocol, HeatSettings(dose=Dose()))


def test_the_power_given_is_the_heat_in_the_tissue() -> None:
    lattice = lattice_of((heated(BLOODLESS),), 26, insulated=True)
    course = run(lattice, [ANTENNA], [Interval(100, (None,), (25.0,))])
    assert float(course.enthalpy.astype(float).sum()) * lattice.spacing_m**3 == pytest.approx(2500.0, rel=2e-3)
    assert course.drawn_j == 0.0


def test_coagulated_tissue_is_not_perfused_any_more() -> None:
    """Of what a power too low to coagulate has given, blood carries away a larger share than of one that does."""
    kept = []
    for power_w in (1.0, 60.0):
        lattice = lattice_of((heated(LIVER),), 26)
        course = run(lattice, [ANTENNA], [Interval(120, (None,), (power_w,)), Interval(120, (None,))])
        assert course.dose is not None
        assert bool((course.dose >= 1).any()) == (power_w > 10)
        kept.append(float(course.enthalpy.astype(float).sum()) * lattice.spacing_m**3 / (120 * power_w))
    carried = [1 - share for share in kept]
    assert carried[1] < 0.9 * carried[0]


@pytest.mark.parametrize(("power_w", "limit_c"), [(40.0, 60.0), (40.0, 80.0), (80.0, 80.0)])
def test_a_generator_that_follows_the_temperature_holds_it(power_w: float, limit_c: float) -> None:
    """However long the steps are, and whatever other tissue lies elsewhere."""
    labels = np.zeros((26, 26, 26), np.uint8)
    labels[:, :3], labels[:, -3:] = 1, 2
    lattice = lattice_of((heated(LIVER), heated(FAT), heated(GAS)), labels)
    around = beside(ANTENNA, lattice)
    volumes = []
    for settings in (HeatSettings(), HeatSettings(longest_step_s=0.2, shortest_step_s=0.2)):
        course = run(lattice, [ANTENNA], [Interval(300, (None,), (power_w,), limit_c)], settings)
        assert course.dose is not None
        assert float(lattice.by_tissue(course.enthalpy, "temperature_of")[around].mean()) == pytest.approx(
            limit_c, abs=1.0
        )
        volumes.append(float(np.clip(0.5 + np.log(np.maximum(course.dose, 1e-6)), 0, 1).sum()))
    assert volumes[0] == pytest.approx(volumes[1], rel=0.05)  # nearer to the line it boils
    free = run(lattice, [ANTENNA], [Interval(300, (None,), (power_w,))])
    assert float(lattice.by_tissue(free.enthalpy, "temperature_of")[around].mean()) > limit_c + 5


def test_one_freeze_is_what_its_parts_are() -> None:
    """Switching something else on the way does not make a probe start anew."""
    lattice = lattice_of((GEL,), np.zeros((40, 40, 40), np.uint8))
    applicator = Applicator("A", (0.0, 0.0, -8.0), (0.0, 0.0, 40.0), PROBE)
    line = active_line(applicator)
    drawn = []
    for parts in (1, 10):
        phases = [ProtocolPhase("freeze", 300.0 / parts)] * parts
        drawn.append(run(lattice, [line], intervals_of([applicator], phases)).drawn_j)
    assert drawn[1] == pytest.approx(drawn[0], rel=0.01)


def test_a_far_probe_that_starts_later_changes_nothing() -> None:
    shape = (40, 40, 40)
    lattice = lattice_of((LIVER,), np.zeros(shape, np.uint8))
    near = Applicator("A", (-12.0, 0.0, -8.0), (-12.0, 0.0, 40.0), replace(PROBE, active_length_mm=8.0))
    far = replace(
        near, tip_lps_mm=(14.0, 14.0, 8.0), entry_lps_mm=(14.0, 14.0, 60.0), start_s=60.0, power_fraction=1e-3
    )
    freeze = [ProtocolPhase("freeze", 240.0)]
    alone = run(lattice, [active_line(near)], intervals_of([near], freeze))
    both = run(lattice, [active_line(near), active_line(far)], intervals_of([near, far], freeze))
    cold = [lattice.by_tissue(c.least_enthalpy[-1], "temperature_of") <= -20 for c in (alone, both)]
    assert cold[0].sum() > 50
    assert cold[1].sum() == pytest.approx(cold[0].sum(), rel=0.03)


@pytest.mark.parametrize("spacing_mm", [1.0, 1.5])
def test_an_electrodes_zone_hardly_depends_on_where_the_cells_lie(spacing_mm: float) -> None:
    volumes = []
    for shift in (0.0, 0.25, 0.5):
        n = int(44 / spacing_mm)
        first = -(n - 1) / 2 * spacing_mm + shift * spacing_mm
        grid = upright_grid((n,) * 3, (spacing_mm,) * 3, (first,) * 3, "frame")
        lattice = Lattice(grid, np.zeros(grid.shape, np.uint8), (heated(LIVER),))
        line = Line((0.0, 0.0, -8.0), (0.0, 0.0, 8.0), 0.735, reach_mm=100.0)
        course = run(lattice, [line], [Interval(240, (Drive(15.0, 3000.0, 5.0),), (30.0,), 83.0)])
        assert course.dose is not None
        level = np.log(np.maximum(course.dose, 1e-6))
        volumes.append(float(np.clip(0.5 + level / 4, 0, 1).sum()) * spacing_mm**3)
    assert max(volumes) < 1.06 * min(volumes)
