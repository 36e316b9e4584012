"""Missing slices are seen by place, or by number where the places do not tell; whole series are left in peace."""

from __future__ import annotations

import pytest
from pydicom.uid import generate_uid

from dicom_node.exchange.holes import facts_of, holes_in


@pytest.fixture
def stored(bench):
    """Writes slices at these places and numbers; gives the files."""

    def stored(places_mm, numbers=None, **changed):
        files = []
        for count, place_mm in enumerate(places_mm):
            dataset = bench.patient().slice("holes", "20260101", count)
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            dataset.FrameOfReferenceUID, dataset.SeriesNumber = "1.2.3", 4
            dataset.SeriesDescription = "portal venous"
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
            dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, place_mm], [1, 0, 0, 0, 1, 0]
            dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 2
            dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
            dataset.InstanceNumber = count + 1 if numbers is None else numbers[count]
            for keyword, values in changed.items():
                setattr(dataset, keyword, values[count])
            files.append(bench.folder / f"{len(list(bench.folder.iterdir()))}.dcm")
            files[-1].write_bytes(bench.file_bytes(dataset))
        return files

    return stored


def missing(files) -> str:
    (facts,) = facts_of(files)
    assert (facts.modality, facts.description, facts.images) == ("CT", "portal venous", len(files))
    return facts.missing


def test_a_whole_series_misses_nothing(stored):
    assert missing(stored([0, 2, 4, 6, 8])) == ""


def test_numbers_that_a_scanner_skipped_are_no_hole(stored):
    assert missing(stored([0, 2, 4, 6, 8], [1, 2, 5, 6, 9])) == ""


@pytest.mark.parametrize(
    ("places_mm", "told"), [([0, 2, 6, 8, 10], "1 slice is missing"), ([0, 2, 8, 10, 12], "2 slices are missing")]
)
def test_a_gap_is_told_with_its_series(stored, places_mm, told):
    text = missing(stored(places_mm))
    assert text.startswith("In series 4 (portal venous), ")
    assert told in text


def test_two_gaps_side_by_side_are_told_by_the_numbers(stored):
    places_mm = [0, 2, 4, 6, 10, 14, 16, 18, 20]
    numbers = [1, 2, 3, 4, 6, 8, 9, 10, 11]
    assert "2 slices are missing" in missing(stored(places_mm, numbers))


def test_a_phase_that_is_shorter_than_the_others_misses_what_its_numbers_say(stored):
    places_mm, phases = [0, 2, 4, 6, 0, 2, 4, 6], [1, 1, 1, 1, 2, 2, 2, 2]
    numbers = [1, 2, 3, 4, 5, 6, 7, 8]
    assert missing(stored(places_mm, numbers, AcquisitionNumber=phases)) == ""
    without_one = [*range(4), *range(5, 8)]
    marks = [phases[n] for n in without_one]
    lacking = stored([places_mm[n] for n in without_one], [numbers[n] for n in without_one], AcquisitionNumber=marks)
    assert "1 slice is missing" in missing(lacking)


def test_a_localizer_and_what_is_no_image_are_left_in_peace(stored, tmp_path):
    kinds = [["ORIGINAL", "PRIMARY", "LOCALIZER"]] * 5
    assert missing(stored([0, 2, 6, 8, 10], ImageType=kinds)) == ""
    (tmp_path / "notes.txt").write_text("no image")
    assert facts_of([tmp_path / "notes.txt"]) == []


@pytest.mark.parametrize(
    ("numbers", "count"),
    [([], 0), ([5], 0), ([1, 2, 3], 0), ([3, 1, 4], 1), ([10, 20, 40, 50], 1), ([1, 2, 900], 0), ([1, 3, 5, 7], 0)],
)
def test_holes_are_counted_in_the_usual_step(numbers, count):
    assert holes_in(numbers) == count
