"""Contours in every form, against shapes whose voxels and volumes are known: holes, gaps, planes at any angle."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation
from skimage.draw import polygon2mask

from dicom_node.decode.contour_planes import rastered
from dicom_node.decode.contours import contours_of, roi_frame_uid, roi_voxels
from dicom_node.decode.files import scan
from dicom_node.decode.nifti_image import read_nifti
from dicom_node.refusal import Refused
from pipeline.geometry import Geometry, upright_grid

CENTER = np.array([5.0, -3.0, 50.0])
SLICES = 30 + 2.0 * np.arange(20)


@pytest.fixture
def fine(kit):
    """A scan of 1 mm voxels, 60 mm wide."""
    return upright_grid((60, 60, 60), (1.0, 1.0, 1.0), CENTER - 29.5, kit.frame)


def polygon(radius, center=(5.0, -3.0), *, z=None, turned=0.0, count=120):
    """A circle (or, with a few points, a regular polygon) in a plane; with z as LPS points on a slice."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False) + turned
    flat = np.stack([center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)], -1)
    return flat if z is None else np.column_stack([flat, np.full(count, z)])


def square(x, y, z):
    """x, y: from and to."""
    return np.array([[x[0], y[0], z], [x[1], y[0], z], [x[1], y[1], z], [x[0], y[1], z]])


def across(mask):
    """Voxel centers' distance from the axis of `polygon`, and the z of their slices."""
    points = mask.geometry.grid_lps()
    return np.hypot(points[..., 0] - 5, points[..., 1] + 3), points[..., 2]


def ellipsoid_contours(radii, turn, step, rng_shift=0.0):
    """An ellipsoid around CENTER, cut by planes whose normal is the third axis of a rotation."""
    axes = turn.as_matrix()
    contours = []
    for height in np.arange(-radii[2] + step / 2 + rng_shift, radii[2], step):
        share = np.sqrt(1 - (height / radii[2]) ** 2)
        angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
        local = np.stack([radii[0] * share * np.cos(angle), radii[1] * share * np.sin(angle), np.full(90, height)], -1)
        contours.append(CENTER + local @ axes.T)
    return contours


def inside_ellipsoid(points, radii, turn):
    return (((points - CENTER) @ turn.as_matrix() / radii) ** 2).sum(-1) <= 1


TURNS = {
    "sagittal": Rotation.from_euler("y", 90, degrees=True),
    "coronal": Rotation.from_euler("x", 90, degrees=True),
    "tilted": Rotation.from_rotvec(np.radians(35) * np.array([0.6, 0.64, 0.48])),
    "slightly tilted": Rotation.from_euler("x", 8, degrees=True),
}


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS.keys())
@pytest.mark.parametrize("step", [1.5, 3.0])
def test_contours_on_planes_at_any_angle(kit, read, fine, turn, step):
    radii = np.array([14.0, 10.0, 12.0])
    mask = read(kit.roi(), kit.structures(ellipsoid_contours(radii, turn, step)), grid=fine)
    expected_ml = 4 / 3 * np.pi * radii.prod() / 1000
    assert mask.volume_ml == pytest.approx(expected_ml, rel=0.01)
    assert mask.centroid_lps_mm == pytest.approx(CENTER, abs=0.3)
    truth = inside_ellipsoid(mask.geometry.grid_lps(), radii, turn)
    assert 2 * (truth & mask.voxels).sum() / (truth.sum() + mask.voxels.sum()) > 0.97
    assert mask.geometry.frame_uid == kit.frame


def test_oblique_contours_have_holes_too(kit, read, fine):
    """A torus' slices through its axis: each plane shows two discs. And a tube: a ring in each plane."""
    turn = TURNS["tilted"].as_matrix()
    heights = np.arange(-9.5, 10, 1.0)
    rings = [
        CENTER + np.column_stack([polygon(r, (0, 0)), np.full(120, z)]) @ turn.T for z in heights for r in (12.0, 6.0)
    ]
    mask = read(kit.roi(), kit.structures(rings), grid=fine)
    assert mask.volume_ml == pytest.approx(np.pi * (12**2 - 6**2) * 20 / 1000, rel=0.05)
    local = (mask.points_lps_mm() - CENTER) @ turn
    assert np.hypot(local[:, 0], local[:, 1]).min() > 5.0


def test_one_oblique_contour_is_as_thick_as_a_slice(kit, read, baseline):
    steep = polygon(6.0, z=50.0)
    steep[:, 2] += steep[:, 0]
    mask = read(kit.roi(), kit.structures([steep]))
    area_mm2 = np.pi * 36 * np.sqrt(2)
    assert mask.volume_ml * 1000 / area_mm2 == pytest.approx(baseline.spacing_mm.max(), abs=0.75)


@pytest.mark.parametrize("kind", ["bent", "fanned"])
def test_contours_that_have_no_common_plane_are_refused(kit, read, kind):
    contours = [polygon(8.0, z=z) for z in (44.0, 46.0, 48.0)]
    if kind == "bent":
        contours[1][:, 2] += 0.3 * np.abs(contours[1][:, 0] - 5) ** 1.5
    else:
        contours[1][:, 2] += 0.5 * (contours[1][:, 0] - 5)
    with pytest.raises(Refused, match=r"^lesions\[0\]\.tumor: its contours are not planar, or .*\.$") as refused:
        read(kit.roi(), kit.structures(contours))
    assert refused.value.code == "region_unreadable"


def keyhole(outer, inner):
    """One contour that runs around, in through a channel of no width, around the hole and out again."""
    ends = [np.vstack([ring, ring[:1]]) for ring in (outer, inner)]
    return np.vstack([ends[0], ends[1][::-1]])


@pytest.mark.parametrize("form", ["nested", "keyhole", "xor"])
def test_a_hole_in_each_form(kit, read, form):
    rings = [(polygon(9.0, z=z), polygon(4.0, z=z)) for z in SLICES[8:14]]
    contours = [keyhole(*pair) for pair in rings] if form == "keyhole" else [c for pair in rings for c in pair]
    mask = read(kit.roi(), kit.structures(contours, kind="CLOSEDPLANAR_XOR" if form == "xor" else "CLOSED_PLANAR"))
    distance, z = across(mask)
    truth = (distance < 9) & (distance > 4) & (z >= SLICES[8]) & (z <= SLICES[13])
    assert (mask.voxels ^ truth).sum() <= 0.03 * truth.sum()


def test_an_island_in_a_hole_and_contours_that_overlap(kit, read):
    z = 50.0
    onion = [polygon(9.0, z=z), polygon(6.5, z=z), polygon(3.5, z=z)]
    mask = read(kit.roi(), kit.structures(onion))
    distance, height = across(mask)
    truth = ((distance < 3.5) | ((distance > 6.5) & (distance < 9))) & (height == z)
    assert (mask.voxels ^ truth).sum() <= 0.05 * truth.sum()
    squares = [square((-5.1, 4.9), (-10.1, 0.1), z), square((0.1, 12.1), (-6.1, 6.1), z)]
    points = mask.geometry.grid_lps()
    x, y = points[..., 0], points[..., 1]
    either = (x > -5.1) & (x < 4.9) & (y > -10.1) & (y < 0.1) | (x > 0.1) & (x < 12.1) & (y > -6.1) & (y < 6.1)
    union = read(kit.roi(), kit.structures(squares))
    assert np.array_equal(union.voxels, either & (height == z))
    both = (x > 0.1) & (x < 4.9) & (y > -6.1) & (y < 0.1)
    exchanged = read(kit.roi(), kit.structures(squares, kind="CLOSEDPLANAR_XOR"))
    assert np.array_equal(exchanged.voxels, either & ~both & (height == z))


def test_a_contour_that_is_there_twice_counts_once(kit, read):
    once, twice = (read(kit.roi(), kit.structures([polygon(8.0, z=50.0)] * n)) for n in (1, 2))
    assert np.array_equal(once.voxels, twice.voxels)


def test_what_encloses_nothing_is_left_out(kit, read):
    good = polygon(8.0, z=50.0)
    expected = read(kit.roi(), kit.structures([good])).voxels
    closed = np.vstack([good, good[:1]])
    line = np.array([[0.0, 0, 60], [5, 0, 60], [9, 0, 60]])
    dataset = kit.structures([closed, line, line[:2], line[:1]])
    for kind, points in (("POINT", line[:1]), ("OPEN_PLANAR", polygon(8.0, z=60.0)), ("OPEN_NONPLANAR", line)):
        (other,) = kit.structures([points], kind=kind).ROIContourSequence[0].ContourSequence
        dataset.ROIContourSequence[0].ContourSequence.append(other)
    assert np.array_equal(read(kit.roi(), dataset).voxels, expected)
    with pytest.raises(Refused) as refused:
        read(kit.roi(), kit.structures([line]))
    assert refused.value.code == "empty_region"


@pytest.mark.parametrize("missing", [1, 2])
def test_a_gap_of_up_to_two_slices_is_closed(kit, read, missing):
    """A cone whose radius on the missing slices is known."""
    slices = np.delete(SLICES[4:14], range(4, 4 + missing))
    mask = read(kit.roi(), kit.structures([polygon(4 + 0.3 * (z - 38), z=z) for z in slices]))
    distance, z = across(mask)
    truth = (distance < 4 + 0.3 * (z - 38)) & (z >= 38) & (z <= SLICES[13])
    gap = (z >= SLICES[8]) & (z <= SLICES[7 + missing])
    assert (mask.voxels & gap).sum() == pytest.approx((truth & gap).sum(), rel=0.1)
    assert (mask.voxels ^ truth).sum() <= 0.05 * truth.sum()


def test_a_wider_gap_stays_empty(kit, read):
    slices = np.delete(SLICES[4:16], range(4, 7))
    mask = read(kit.roi(), kit.structures([polygon(8.0, z=z) for z in slices]))
    filled = mask.voxels.any(axis=(1, 2))
    assert np.array_equal(np.flatnonzero(filled), np.flatnonzero(np.isin(SLICES, slices)))


def test_two_bodies_are_not_joined(kit, read):
    """One above the other with two empty slices between, side by side in the plane; a third goes on through."""
    low = [polygon(3.0, (-3.0, -12.0), z=z) for z in SLICES[4:8]]
    high = [polygon(3.0, (8.0, -12.0), z=z) for z in SLICES[10:14]]
    through = [polygon(3.0, (5.0, 4.0), z=z) for z in [*SLICES[4:8], *SLICES[10:14]]]
    mask = read(kit.roi(), kit.structures([*low, *high, *through]))
    gap = mask.voxels[8:10]
    points = mask.geometry.grid_lps()[8:10][gap]
    assert np.hypot(points[:, 0] - 5, points[:, 1] - 4).max() < 3.5
    assert gap.sum() == pytest.approx(2 * np.pi * 9 / (1.5 * 1.25), rel=0.15)


def test_two_far_contours_are_two_discs(kit, read):
    mask = read(kit.roi(), kit.structures([polygon(8.0, z=z) for z in (SLICES[3], SLICES[15])]))
    assert np.flatnonzero(mask.voxels.any(axis=(1, 2))).tolist() == [3, 15]


def test_contours_much_finer_than_the_slices_are_no_holes_in_one_another(kit, read):
    """A ball drawn every 0.2 mm on slices of 2 mm: ten contours a slice, each inside the next."""
    heights = np.arange(-7.9, 8, 0.2)
    contours = [polygon(np.sqrt(64 - h**2), z=50 + h) for h in heights]
    mask = read(kit.roi(), kit.structures(contours))
    assert mask.volume_ml == pytest.approx(4 / 3 * np.pi * 8**3 / 1000, rel=0.05)


def test_contours_of_one_slice_need_not_have_one_height(kit, read):
    """Four bodies on each slice, each a twentieth of a millimetre above the last, as rounding leaves them."""
    places = [(0.0, -8.0), (12.0, -8.0), (0.0, 4.0), (12.0, 4.0)]
    contours = [polygon(4.0, at, z=z + 0.05 * n) for z in SLICES[4:12] for n, at in enumerate(places)]
    exact = [polygon(4.0, at, z=z) for z in SLICES[4:12] for at in places]
    assert np.array_equal(*(read(kit.roi(), kit.structures(drawn)).voxels for drawn in (contours, exact)))


@pytest.mark.parametrize("contour", [polygon(8.0, z=300.0), polygon(0.2, (4.4, -3.4), z=50.0)], ids=["far", "tiny"])
def test_contours_of_which_the_baseline_shows_nothing(kit, read, contour):
    with pytest.raises(Refused, match="nothing of the region is left on the baseline scan") as refused:
        read(kit.roi(), kit.structures([contour]))
    assert refused.value.code == "empty_region"


def test_coordinates_of_no_patient_are_refused(kit, read):
    with pytest.raises(Refused, match="reach farther than any patient"):
        read(kit.roi(), kit.structures([polygon(8.0, z=50.0), polygon(8.0, z=1e6)]))


def test_the_frame_may_be_told_by_the_object_alone(kit, read):
    dataset = kit.structures([polygon(8.0, z=50.0)])
    del dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID
    dataset.ReferencedFrameOfReferenceSequence = [kit.item(FrameOfReferenceUID=kit.frame)]
    assert not read(kit.roi(), dataset).is_empty


@pytest.mark.parametrize("seed", range(5))
def test_a_polygon_against_a_test_of_every_pixel(seed):
    """Any polygon, crossing itself and reaching over the box, as another rasterizer fills it."""
    random = np.random.default_rng(seed)
    points = random.uniform(-6, 36, (int(random.integers(3, 40)), 2))
    size = np.array([30, 25])
    assert np.array_equal(rastered(points, size), polygon2mask(tuple(size.tolist()), points))


def test_squares_side_by_side_share_no_pixel():
    left, right = (np.array([[2, a], [8, a], [8, b], [2, b]], float) for a, b in ((1, 5), (5, 9)))
    size = np.array([12, 12])
    both = rastered(left, size).astype(int) + rastered(right, size)
    assert both.max() == 1
    assert both.sum() == 6 * 8


@pytest.mark.parametrize("kind", ["CT", "MR_T1"])
@pytest.mark.parametrize("turn", [(0, np.pi / 2, 0), (0.3, 0.2, 0.1)], ids=["sagittal", "tilted"])
def test_real_contours_across_the_baselines_slices(shared, kind, turn):
    """The published mask of a real RTSTRUCT, where the baseline's slices were turned against the contours."""
    folder = shared / "real" / "soft_tissue_STS_005"
    (header,) = scan([folder / kind / "mask"]).headers
    frame = roi_frame_uid(header, 1, "tumor")
    values, published = read_nifti(folder / f"{kind}_mask.nii.gz", frame, "published")
    matrix = published.lps_from_index.copy()
    center = published.lps_of((np.array(published.shape) - 1) / 2)
    matrix[:3, :3] = Rotation.from_rotvec(turn).as_matrix() @ np.abs(matrix[:3, :3])
    matrix[:3, 3] = center - matrix[:3, :3] @ ((np.array(published.shape) - 1) / 2)
    turned = Geometry(published.shape, matrix, frame)
    voxels, grid = roi_voxels(contours_of(header, 1, "tumor"), "tumor", turned)
    index = np.moveaxis(grid.index_of(published.grid_lps()), -1, 0)
    found = ndimage.map_coordinates(voxels.astype(np.float32), index, order=1) >= 0.5
    oracle = values > 0
    assert 2 * (oracle & found).sum() / (oracle.sum() + found.sum()) > 0.99
