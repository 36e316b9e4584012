"""The contrast phase from the image: on real scans, and on the same scans with their contrast taken down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from dicom_node.decode.files import scan
from dicom_node.decode.series import Acquisition, read_series, read_volume
from pipeline.enhancement import _judged, estimate_phase
from pipeline.geometry import Geometry
from pipeline.volume import Volume

REAL = [
    ("real/hcc015", "4", 0, "arterial"),
    ("real/hcc015", "103", 0, "portal_venous"),
    ("real/hcc002_two_phases_in_one_series", "4", 0, "arterial"),
    ("real/hcc002_two_phases_in_one_series", "4", 1, "portal_venous"),
    ("quirks/jpeg2000_ct", "", 0, "portal_venous"),
    ("real/soft_tissue_STS_005/CT/image", "3", 0, "unknown"),
    ("quirks/tilted_gantry_uneven_gaps", "2", 0, "unknown"),
    *((f"cases/dev{n}/{part}", "", 0, "portal_venous") for n in (1, 2, 3, 4) for part in ("baseline", "followup-1")),
    ("cases/dev4/followup-2", "", 0, "portal_venous"),
]


Acquired = Callable[[str, str, int], Acquisition]


@pytest.fixture(scope="session")
def acquisition(shared: Path) -> Acquired:
    """A scan of the shared data: folder, series (empty: the only one), number of the acquisition."""

    def read(folder: str, series: str, number: int) -> Acquisition:
        headers = [h for h in scan([shared / folder]).headers if not series or h.text("SeriesNumber") == series]
        return read_series(headers).acquisitions[number]

    return read


@pytest.mark.parametrize(("folder", "series", "number", "phase"), REAL)
def test_real_scans(folder, series, number, phase, acquisition):
    estimate = estimate_phase(read_volume(acquisition(folder, series, number)))
    assert estimate.phase == phase, estimate
    assert estimate.reason.endswith(".")


def recolored(volume: Volume, soft) -> Volume:
    """The scan with `soft` applied to enhanced soft tissue and bone left as it is."""
    values = volume.voxels.astype(np.float32)
    bone = ndimage.binary_dilation(ndimage.binary_opening(values > 280), iterations=3)
    tissue = (values > 60) & (values < 700) & ~bone
    values[tissue] = soft(values[tissue])
    return Volume(values, volume.geometry, "ct_hu")


@pytest.mark.parametrize("folder", ["cases/dev1/baseline", "cases/dev3/followup-1", "quirks/jpeg2000_ct"])
def test_contrast_taken_down_reads_as_unenhanced(folder, acquisition):
    volume = recolored(read_volume(acquisition(folder, "", 0)), lambda hu: 48 + 0.05 * (hu - 100))
    estimate = estimate_phase(volume)
    assert estimate.phase == "unenhanced", estimate


@pytest.mark.parametrize("folder", ["cases/dev1/baseline", "cases/dev3/followup-1"])
def test_a_liver_bright_by_amiodarone_or_iron_is_no_contrast(folder, acquisition):
    """Only the liver keeps its brightness."""
    scan = read_volume(acquisition(folder, "", 0))
    liver_hu = estimate_phase(scan).liver_hu
    # what is as bright as the liver stays, at 90 HU; blood, kidneys and spleen fall to what they are without contrast
    dark = recolored(scan, lambda hu: np.where(np.abs(hu - liver_hu) < 18, 90 + 0.3 * (hu - liver_hu), 48.0))
    estimate = estimate_phase(dark)
    assert estimate.phase == "unenhanced", estimate


def test_contrast_washed_out_reads_as_delayed(acquisition):
    volume = recolored(read_volume(acquisition("cases/dev3/baseline", "", 0)), lambda hu: 88 + 0.25 * (hu - 100))
    assert estimate_phase(volume).phase == "delayed"


@pytest.fixture(scope="module")
def venous(acquisition) -> Volume:
    return read_volume(acquisition("cases/dev2/followup-1", "", 0))


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
def test_the_order_of_rows_and_slices_does_not_matter(venous, axes):
    """Feet first, prone: the same patient on another grid."""
    matrix = venous.geometry.lps_from_index.copy()
    corner = [venous.geometry.shape[n] - 1 if n in axes else 0 for n in range(3)]
    matrix[:3, 3] = venous.geometry.lps_of(corner)
    for n in axes:
        matrix[:3, n] *= -1
    turned = Volume(np.flip(venous.voxels, axes), Geometry(venous.geometry.shape, matrix, "1"), "ct_hu")
    one, two = estimate_phase(venous), estimate_phase(turned)
    assert two.phase == one.phase
    assert two.aorta_hu == pytest.approx(one.aorta_hu, abs=15)


def test_a_narrow_field_of_view_is_not_guessed(venous):
    """Only the right half of the liver: no spine, no aorta."""
    estimate = estimate_phase(venous.crop((slice(20, 50), slice(100, 260), slice(60, 190))))
    assert estimate.phase in ("unknown", "enhanced")
    assert estimate.aorta_hu is None


def test_a_view_without_the_left_side_keeps_the_aorta(venous):
    whole = estimate_phase(venous)
    part = estimate_phase(venous.crop((slice(5, 50), slice(0, 485), slice(0, 330))))
    assert part.phase in (whole.phase, "unknown", "enhanced")


def test_slices_thinned_out_tell_the_same(venous):
    matrix = venous.geometry.lps_from_index.copy()
    matrix[:3, 0] *= 2
    shape = (venous.voxels[::2].shape[0], *venous.geometry.shape[1:])
    thin = Volume(venous.voxels[::2], Geometry(shape, matrix, "1"), "ct_hu")
    assert estimate_phase(thin).phase == "portal_venous"


@pytest.mark.parametrize("fill", [-1024, 0, 50, 300])
def test_an_even_block_tells_nothing(fill):
    matrix = np.eye(4)[:, [2, 1, 0, 3]]
    block = Volume(np.full((20, 150, 150), fill, np.int16), Geometry((20, 150, 150), matrix, "1"), "ct_hu")
    assert estimate_phase(block).phase == "unknown"


def test_an_mr_is_not_judged(venous):
    assert estimate_phase(Volume(venous.voxels, venous.geometry, "mr_signal")).phase == "unknown"


@pytest.mark.parametrize(
    ("aorta_hu", "liver_hu", "phase"),
    [
        (40, 55, "unenhanced"),
        (60, 62, "unenhanced"),
        (40, None, "unenhanced"),
        (40, 30, "unenhanced"),
        (60, 110, "unenhanced"),
        (45, 82, "unenhanced"),
        (74, 130, "unenhanced"),
        (78, 55, "unknown"),
        (105, 55, "portal_venous"),
        (350, 75, "arterial"),
        (350, None, "arterial"),
        (220, 65, "arterial"),
        (165, 115, "portal_venous"),
        (150, 80, "portal_venous"),
        (250, 175, "portal_venous"),
        (160, 60, "portal_venous"),
        (110, 95, "delayed"),
        (150, None, "enhanced"),
        (None, 110, "enhanced"),
        (None, 90, "unknown"),
        (None, 55, "unknown"),
        (None, None, "unknown"),
    ],
)
def test_the_rule(aorta_hu, liver_hu, phase):
    assert _judged(aorta_hu, liver_hu).phase == phase
