"""Slices to volumes: order, spacing, splitting, repairs and refusals, on made series with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_node.decode.files import scan
from dicom_node.decode.series import notes_of, read_series, read_volume, refusal_of
from dicom_node.refusal import Refused


@pytest.fixture
def read(kit, tmp_path):
    def reader(images):
        return read_series(scan([kit.write(images, tmp_path / "in")]).headers)

    return reader


def only(series):
    assert len(series.acquisitions) == 1, series.refused
    return series.acquisitions[0]


def code_of(series):
    assert not series.acquisitions
    problem = refusal_of(series, "The series")
    assert problem.text.endswith(".")
    return problem.code


@pytest.mark.parametrize("axes", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)])
@pytest.mark.parametrize("sign", [1, -1])
def test_every_voxel_lies_where_its_slice_says(kit, read, axes, sign):
    normal = np.cross(axes[:3], axes[3:])
    series = kit.Series(kit.ramp(), axes=axes, step_mm=tuple(sign * 2.5 * normal))
    images = series.images()
    np.random.default_rng(1).shuffle(images)
    volume = read_volume(only(read(images)))
    assert np.linalg.det(volume.geometry.lps_from_index[:3, 2::-1]) > 0  # right-handed as (i, j, k)
    for k, j, i in [(0, 0, 0), (2, 3, 4), (5, 7, 9)]:
        point = (
            np.array(series.position(k))
            + i * series.spacing_mm[1] * np.array(axes[:3])
            + j * series.spacing_mm[0] * np.array(axes[3:])
        )
        index = volume.geometry.index_of(point)
        assert np.abs(index - np.round(index)).max() < 1e-6
        assert volume.voxels[tuple(np.round(index).astype(int))] == series.values[k, j, i]


def test_positions_are_on_the_normal_when_they_jitter(kit, read):
    series = kit.Series(kit.ramp(20))
    jitter = np.random.default_rng(2).uniform(-0.05, 0.05, (20, 3))
    images = [
        series.image(k, ImagePositionPatient=[round(float(v), 4) for v in np.array(series.position(k)) + jitter[k]])
        for k in range(20)
    ]
    acquisition = only(read(images))
    assert not acquisition.stack.resampled
    assert acquisition.geometry.spacing_mm == pytest.approx([2.0, 1.5, 1.25], abs=0.01)


@pytest.mark.parametrize(
    ("stored", "intercept", "dtype"),
    [(np.int16, -1024, np.float32), (np.uint16, 0, np.float32), (np.int16, 0, np.int16)],
)
def test_sixteen_bits_do_not_overflow(kit, read, stored, intercept, dtype):
    values = np.zeros((3, 4, 4), stored)
    values[1, 1, 1], values[2, 2, 2] = np.iinfo(stored).min, np.iinfo(stored).max
    volume = read_volume(only(read(kit.Series(values, intercept=intercept).images())))
    assert volume.voxels.dtype == dtype
    assert np.array_equal(volume.voxels, values.astype(np.float64) + intercept)


def test_each_slice_has_its_own_slope(kit, read):
    series = kit.Series(np.full((3, 4, 4), 100, np.int16), modality="MR")
    images = [series.image(k, RescaleSlope=1.5 + k, RescaleIntercept=0) for k in range(3)]
    volume = read_volume(only(read(images)))
    assert volume.quantity == "mr_signal"
    assert volume.voxels[:, 0, 0].tolist() == [150.0, 250.0, 350.0]


def test_a_slope_of_zero_is_no_slope_on_ct_and_means_nothing_on_mr(kit, read):
    values = np.full((3, 4, 4), 100, np.int16)
    broken = kit.Series(values)
    for slopes in ((0, 0, 0), (1, 1, 0)):
        problem = read([broken.image(k, RescaleSlope=slope) for k, slope in enumerate(slopes)])
        assert code_of(problem) == "rescale_slope_zero"
        assert "RescaleSlope of 0" in problem.refused[0].text
    signal = kit.Series(values, modality="MR")
    images = [signal.image(k, RescaleSlope=0, RescaleIntercept=0) for k in range(3)]
    assert (read_volume(only(read(images))).voxels == 100).all()


def test_a_missing_slice(kit, read):
    series = kit.Series(kit.ramp(10))
    problem = read([series.image(k) for k in range(10) if k != 4])
    assert code_of(problem) == "missing_slices"
    assert "1 slice is missing" in problem.refused[0].text
    assert "between 36.0 and 40.0 mm" in problem.refused[0].text


def test_one_slice(kit, read):
    assert code_of(read([kit.Series(kit.ramp()).image(0)])) == "one_slice"


def test_an_empty_list():
    assert refusal_of(read_series([]), "The folder").code == "no_images"


def test_the_same_file_twice_counts_once(kit, read):
    series = kit.Series(kit.ramp())
    acquisition = only(read([*series.images(), series.image(2)]))
    assert len(acquisition.frames) == 6


def test_one_uid_on_two_different_images(kit, read):
    series = kit.Series(kit.ramp())
    other = kit.Series(kit.ramp() + 5).image(2)
    assert code_of(read([*series.images(), other])) == "conflicting_duplicates"


def test_copies_under_new_uids_are_dropped_and_told(kit, read):
    series = kit.Series(kit.ramp())
    copies = [series.image(k, SOPInstanceUID=kit.uid_of("copy", k)) for k in (1, 2)]
    result = read([*series.images(), *copies])
    acquisition = only(result)
    assert np.array_equal(read_volume(acquisition).voxels, series.values)
    assert [note.code for note in notes_of(result, acquisition)] == ["duplicates_dropped"]


def test_two_different_images_at_one_place(kit, read):
    series = kit.Series(kit.ramp())
    other = kit.Series(kit.ramp() + 5).image(2, SOPInstanceUID=kit.uid_of("other"))
    assert code_of(read([*series.images(), other])) == "duplicate_slices"


@pytest.mark.parametrize(
    "mark",
    [
        {"AcquisitionNumber": 2},
        {"ImageType": ["ORIGINAL", "PRIMARY", "W"]},
        {"TemporalPositionIdentifier": 7},
        {"EchoTime": 4.6},
        {"TriggerTime": 300},
        {"ConvolutionKernel": "B60f"},
    ],
)
def test_two_acquisitions_of_one_series(kit, read, mark):
    one, two = kit.Series(kit.ramp(8)), kit.Series(kit.ramp(8) + 1000)
    second = [two.image(k, SOPInstanceUID=kit.uid_of("two", k), **mark) for k in range(8)]
    images = [image for pair in zip(one.images(), second, strict=True) for image in pair]
    acquisitions = read(images).acquisitions
    assert len(acquisitions) == 2
    assert sorted(int(read_volume(a).voxels[0, 0, 0]) for a in acquisitions) == [0, 1000]
    assert next(iter(mark)) in acquisitions[1].label


def test_two_acquisitions_half_a_slice_apart(kit, read):
    one = kit.Series(kit.ramp(12))
    two = kit.Series(kit.ramp(12) + 2000, origin_mm=(-10.0, -20.0, 30.7))
    second = [two.image(k, SOPInstanceUID=kit.uid_of("two", k), AcquisitionNumber=2) for k in range(12)]
    acquisitions = read([*one.images(), *second]).acquisitions
    assert [len(a.frames) for a in acquisitions] == [12, 12]


def test_repeats_that_only_their_time_tells_apart(kit, read):
    one, two = kit.Series(kit.ramp(5)), kit.Series(kit.ramp(5) + 1000)
    first = [one.image(k, AcquisitionTime=f"1000{k:02d}") for k in range(5)]
    second = [two.image(k, SOPInstanceUID=kit.uid_of("t", k), AcquisitionTime=f"1001{k:02d}") for k in range(5)]
    acquisitions = read([*second, *first]).acquisitions
    assert [a.label for a in acquisitions] == ["time 1", "time 2"]
    assert [int(read_volume(a).voxels[0, 0, 0]) for a in acquisitions] == [0, 1000]


def test_step_and_shoot_stays_one_volume(kit, read):
    series = kit.Series(kit.ramp(12))
    acquisition = only(read([series.image(k, AcquisitionNumber=1 + k // 4) for k in range(12)]))
    assert len(acquisition.frames) == 12


def test_localizers_are_split_off(kit, read):
    axial = kit.Series(kit.ramp(8))
    scout = kit.Series(kit.ramp(1), axes=(1, 0, 0, 0, 0, -1))
    images = [
        *axial.images(),
        scout.image(0, SOPInstanceUID=kit.uid_of("s"), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    ]
    result = read(images)
    assert len(only(result).frames) == 8
    assert [problem.code for problem in result.refused] == ["one_slice"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary_capture"),
        ({"PixelSpacing": None}, "no_pixel_spacing"),
        ({"PixelData": None}, "no_pixel_data"),
    ],
)
def test_a_foreign_picture_among_the_slices(kit, read, changes, code):
    series = kit.Series(kit.ramp(8))
    images = [series.image(k, **(changes if k == 7 else {})) for k in range(8)]
    assert code_of(read(images)) == code


COLOR = {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}


def test_color_pictures_among_the_slices_are_left_out_and_told(kit, read):
    series = kit.Series(kit.ramp(8))
    capture = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"}
    pictures = [
        series.image(3, SOPInstanceUID=kit.uid_of("picture", n), **COLOR, **changes)
        for n, changes in enumerate(({}, capture))
    ]
    result = read([*series.images(), *pictures])
    assert len(only(result).frames) == 8
    (note,) = notes_of(result, only(result))
    assert note.code == "color_pictures_left_out"
    assert note.text == "2 color pictures lay among the slices of the series and were left out."
    scout = series.image(0, SOPInstanceUID=kit.uid_of("s"), ImagePositionPatient=None, ImageType=["ORIGINAL"])
    assert code_of(read([scout, *pictures, *series.images()[:1]])) == "no_position"


def test_a_hole_where_a_color_picture_stands_for_a_slice_and_nothing_but_pictures(kit, read):
    series = kit.Series(kit.ramp(8))
    assert code_of(read([series.image(k, **(COLOR if k == 4 else {})) for k in range(8)])) == "missing_slices"
    assert code_of(read([series.image(k, **COLOR) for k in range(8)])) == "not_grayscale"
    assert code_of(read([series.image(k, **(COLOR if k else {})) for k in range(8)])) == "one_slice"


def test_a_slice_cut_short(kit, tmp_path):
    kit.write(kit.Series(kit.ramp(8)).images(), tmp_path)
    path = tmp_path / "003"
    path.write_bytes(path.read_bytes()[:-30])
    problem = refusal_of(read_series(scan([tmp_path]).headers), "The series")
    assert problem.code == "truncated_file"
    assert "003" in problem.text


def test_tilt_and_uneven_gaps_are_undone_exactly_where_the_image_is_linear(kit, read):
    """Slices sample a linear function of space; on the upright grid it must come out again, voxel by voxel."""
    angle = np.radians(20)
    column = np.array([0, np.cos(angle), -np.sin(angle)])
    gradient = np.array([3.0, 5.0, 4.0])
    depth = np.concatenate([np.arange(10) * 3.0, 27.0 + 5.0 * np.arange(1, 7)])
    values = np.zeros((16, 30, 24), np.int16)
    series = kit.Series(values, axes=(1, 0, 0, *column), spacing_mm=(1.5, 1.25))
    images = []
    for k, z in enumerate(depth):
        origin = np.array([-10.0, -20.0, 30.0 + z])
        j, i = np.mgrid[0:30, 0:24]
        points = origin + (j * 1.5)[..., None] * column + (i * 1.25)[..., None] * np.array([1.0, 0, 0])
        values[k] = np.rint(points @ gradient)
        images.append(series.image(k, ImagePositionPatient=[float(v) for v in origin], SliceThickness=5.0))
    result = read(images)
    acquisition = only(result)
    assert {note.code for note in notes_of(result, acquisition)} == {"uneven_gaps", "gantry_tilt"}
    assert not acquisition.slices_are_sources
    volume = read_volume(acquisition)
    expected = volume.geometry.grid_lps() @ gradient
    inside = volume.voxels != -1024
    assert 0.3 < inside.mean() < 0.95
    interior = np.zeros_like(inside)
    interior[1:-1, 1:-1, 1:-1] = True
    core = (
        inside
        & interior
        & np.roll(inside, 1, 0)
        & np.roll(inside, -1, 0)
        & np.roll(inside, 1, 1)
        & np.roll(inside, -1, 1)
    )
    assert np.abs(volume.voxels - expected)[core].max() <= 1.01


def test_gaps_wider_than_the_slices_are_not_filled_in(kit, read):
    series = kit.Series(kit.ramp(8))
    along = [0, 2, 4, 6, 9.3, 12.6, 15.9, 19.2]
    images = [series.image(k, ImagePositionPatient=[-10, -20, z], SliceThickness=1.0) for k, z in enumerate(along)]
    assert code_of(read(images)) == "uneven_gaps"


@pytest.mark.parametrize(
    ("thickness", "gap", "found"),
    [
        (1.0, 10.0, "refused"),
        (1.25, 2.5, "refused"),
        (5.0, 6.5, "refused"),
        (5.0, 6.0, "told"),
        (2.5, 3.0, "told"),
        (3.0, 3.3, "nothing"),
        (3.0, 2.0, "nothing"),
        (None, 10.0, "nothing"),
    ],
)
def test_even_slices_with_gaps_between_them(kit, read, thickness, gap, found):
    series = kit.Series(kit.ramp(8), step_mm=(0, 0, gap), tags={"SliceThickness": thickness})
    result = read(series.images())
    if found == "refused":
        assert code_of(result) == "gaps_between_slices"
        assert f"{gap - thickness:.1f} mm between them were not scanned" in result.refused[0].text
    else:
        codes = [note.code for note in notes_of(result, only(result))]
        assert codes == (["gaps_between_slices"] if found == "told" else [])


def test_gaps_between_tilted_slices(kit, read):
    angle = np.radians(20)
    axes = (1, 0, 0, 0, np.cos(angle), -np.sin(angle))
    series = kit.Series(kit.ramp(8), axes=axes, step_mm=(0, 0, 10.0), tags={"SliceThickness": 1.0})
    assert code_of(read(series.images())) == "gaps_between_slices"


def test_slices_shifted_sideways(kit, read):
    series = kit.Series(kit.ramp(8))
    images = [series.image(k, ImagePositionPatient=[-10 + 8 * (k % 2), -20, 2 * k]) for k in range(8)]
    assert code_of(read(images)) == "shifted_slices"


def test_a_thinned_look_lies_on_the_same_places(kit, read):
    acquisition = only(read(kit.Series(kit.ramp(9)).images()))
    full, thin = read_volume(acquisition), read_volume(acquisition, every=2)
    assert np.array_equal(thin.voxels, full.voxels[::2])
    assert thin.geometry.lps_of((2, 1, 1)) == pytest.approx(full.geometry.lps_of((4, 1, 1)))


def test_lossy_compression_is_told(kit, read):
    series = kit.Series(kit.ramp())
    result = read([series.image(k, LossyImageCompression="01") for k in range(6)])
    assert [note.code for note in notes_of(result, only(result))] == ["lossy_compression"]


def test_two_phases_in_one_real_series(shared):
    headers = scan([shared / "real" / "hcc002_two_phases_in_one_series"]).headers
    acquisitions = read_series(headers).acquisitions
    assert [len(a.frames) for a in acquisitions] == [41, 41]
    assert acquisitions[0].geometry.same_grid(acquisitions[1].geometry)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_end_in_a_volume_or_a_named_refusal(kit, tmp_path, seed):
    """Bytes changed at random, or the file cut: nothing but `Refused` may come out, and no warning."""
    random = np.random.default_rng(seed)
    kit.write(kit.Series(kit.ramp()).images(), tmp_path)
    for path in tmp_path.iterdir():
        data = bytearray(path.read_bytes())
        for _ in range(random.integers(0, 12)):
            data[random.integers(132, len(data))] = random.integers(256)
        path.write_bytes(data[: random.integers(100, len(data))] if random.random() < 0.2 else data)
    found = scan([tmp_path])
    series = read_series(found.headers)
    codes = {item.code for item in (*found.skipped, *series.refused)}
    for acquisition in series.acquisitions:
        try:
            read_volume(acquisition)
        except Refused as problem:
            codes.add(problem.code)
    assert all(code.islower() for code in codes)
    assert series.acquisitions or codes
