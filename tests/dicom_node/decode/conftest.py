"""Small made series to decode."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RTStructureSetStorage,
    SegmentationStorage,
    SpatialRegistrationStorage,
    generate_uid,
)

from dicom_node.decode.files import scan
from dicom_node.decode.linked_frames import REGISTRATION_CLASSES
from dicom_node.decode.region_ref import RegionRef
from dicom_node.decode.regions import RegionSource, read_region
from dicom_node.decode.series import read_series
from pipeline.geometry import Geometry
from pipeline.volume import Mask

FRAME_UID = "1.2.3.77"


def uid_of(*names: object) -> str:
    return str(generate_uid(entropy_srcs=[str(name) for name in names]))


@dataclass
class MadeSeries:
    """One series to write: `values` (slices, rows, columns) as stored; slice k lies at ``origin + k * step``."""

    values: NDArray[Any]
    name: str = "series"
    study: str = "study"
    patient_id: str = "MADE-1"
    step_mm: tuple[float, float, float] = (0.0, 0.0, 2.0)
    origin_mm: tuple[float, float, float] = (-10.0, -20.0, 30.0)
    axes: tuple[float, ...] = (1, 0, 0, 0, 1, 0)
    spacing_mm: tuple[float, float] = (1.5, 1.25)
    slope: float = 1
    intercept: float = 0
    modality: str = "CT"
    date: str = "20260301"
    tags: dict[str, Any] = field(default_factory=dict)

    def position(self, k: int) -> list[float]:
        return [o + k * s for o, s in zip(self.origin_mm, self.step_mm, strict=True)]

    def image(self, k: int, **changes: Any) -> Dataset:
        """Slice k as a data set; a change of None removes the element."""
        pixels = np.ascontiguousarray(self.values[k])
        signed = pixels.dtype.kind == "i"
        image = Dataset()
        image.SOPClassUID = CTImageStorage if self.modality == "CT" else MRImageStorage
        image.SOPInstanceUID = uid_of(self.patient_id, self.study, self.name, k)
        image.StudyInstanceUID = uid_of(self.patient_id, self.study)
        image.SeriesInstanceUID = uid_of(self.patient_id, self.study, self.name)
        image.FrameOfReferenceUID = FRAME_UID
        image.PatientID, image.Modality = self.patient_id, self.modality
        image.StudyDate = image.AcquisitionDate = self.date
        image.SeriesNumber, image.SeriesDescription = 3, self.name
        image.InstanceNumber, image.AcquisitionNumber = 1, 1
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.ImagePositionPatient = self.position(k)
        image.ImageOrientationPatient = list(self.axes)
        image.PixelSpacing, image.SliceThickness = list(self.spacing_mm), abs(self.step_mm[2]) or 2.0
        image.Rows, image.Columns = pixels.shape
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 8 * pixels.dtype.itemsize
        image.HighBit, image.PixelRepresentation = image.BitsStored - 1, int(signed)
        if self.modality == "CT":
            image.RescaleSlope, image.RescaleIntercept = self.slope, self.intercept
        image.add_new("PixelData", "OW", pixels.tobytes())
        for keyword, value in {**self.tags, **changes}.items():
            if value is None:
                delattr(image, keyword)
            else:
                setattr(image, keyword, value)
        return image

    def images(self) -> list[Dataset]:
        return [self.image(k) for k in range(len(self.values))]


def save(image: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.TransferSyntaxUID = syntax
    image.save_as(path, enforce_file_format=True)
    return path


def write(images: Sequence[Dataset], folder: Path, *, prefix: str = "") -> Path:
    for number, image in enumerate(images):
        save(image, folder / f"{prefix}{number:03d}")
    return folder


def ramp(slices: int = 6, rows: int = 8, columns: int = 10) -> NDArray[np.int16]:
    """Every voxel another value, as int16."""
    return np.arange(slices * rows * columns, dtype=np.int16).reshape(slices, rows, columns)


def segmentation(
    series: MadeSeries, masks: dict[int, NDArray[np.bool_]], *, name: str = "plan", **changes: Any
) -> Dataset:
    """A binary SEG on the series' grid that leaves empty planes out, frames in falling order as some write it."""
    out = Dataset()
    out.SOPClassUID = SegmentationStorage
    out.SOPInstanceUID = uid_of(series.patient_id, name)
    out.StudyInstanceUID, out.SeriesInstanceUID = uid_of(series.patient_id, series.study), uid_of(name, "seg")
    out.PatientID, out.Modality, out.FrameOfReferenceUID = series.patient_id, "SEG", FRAME_UID
    out.SegmentationType = "BINARY"
    out.SegmentSequence = [_item(SegmentNumber=n, SegmentLabel=f"S{n}") for n in masks]
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=list(series.axes))]
    thickness = float(np.linalg.norm(series.step_mm))
    shared.PixelMeasuresSequence = [
        _item(PixelSpacing=list(series.spacing_mm), SliceThickness=thickness, SpacingBetweenSlices=thickness)
    ]
    out.SharedFunctionalGroupsSequence = [shared]
    frames, planes = [], []
    for number, mask in masks.items():
        for k in reversed(range(len(mask))):
            if mask[k].any():
                frame = Dataset()
                frame.PlanePositionSequence = [_item(ImagePositionPatient=series.position(k))]
                frame.SegmentIdentificationSequence = [_item(ReferencedSegmentNumber=number)]
                frames.append(frame)
                planes.append(mask[k])
    out.PerFrameFunctionalGroupsSequence = frames
    out.NumberOfFrames, (out.Rows, out.Columns) = len(frames), series.values.shape[1:]
    out.SamplesPerPixel, out.PhotometricInterpretation, out.PixelRepresentation = 1, "MONOCHROME2", 0
    out.BitsAllocated, out.BitsStored, out.HighBit = 1, 1, 0
    bits = np.packbits(np.stack(planes).ravel(), bitorder="little").tobytes() if planes else b""
    out.add_new("PixelData", "OB", bits + b"\0" * (len(bits) % 2))
    for keyword, value in changes.items():
        setattr(out, keyword, value)
    return out


def structures(contours: Sequence[Any], *, kind: str = "CLOSED_PLANAR", frame: str = FRAME_UID) -> Dataset:
    """An RTSTRUCT with ROI 4. contours: points (n, 3) LPS each."""
    out = Dataset()
    out.SOPClassUID, out.SOPInstanceUID = RTStructureSetStorage, uid_of("rt")
    out.StudyInstanceUID, out.SeriesInstanceUID = uid_of("st"), uid_of("se")
    out.PatientID, out.Modality = "MADE-1", "RTSTRUCT"
    out.StructureSetROISequence = [_item(ROINumber=4, ROIName="tumor", ReferencedFrameOfReferenceUID=frame)]
    drawn = [
        _item(
            ContourGeometricType=kind,
            NumberOfContourPoints=len(points),
            ContourData=[round(float(v), 4) for v in np.ravel(points)],
        )
        for points in contours
    ]
    out.ROIContourSequence = [_item(ReferencedROINumber=4, ContourSequence=drawn)]
    return out


def registration(own_frame: str, matrices: dict[str, Sequence[Any]], *, kind: str = "RIGID", name: str = "") -> Dataset:
    """A Spatial Registration. matrices: of each frame, those that lead to the object's own, the first applied first."""
    out = Dataset()
    out.SOPClassUID, out.SOPInstanceUID = SpatialRegistrationStorage, uid_of("reg", name)
    out.StudyInstanceUID, out.SeriesInstanceUID = uid_of("reg st"), uid_of("reg se")
    out.PatientID, out.Modality, out.FrameOfReferenceUID = "MADE-1", "REG", own_frame
    out.RegistrationSequence = []
    for frame, steps in matrices.items():
        sequence = [
            _item(
                FrameOfReferenceTransformationMatrixType=kind,
                FrameOfReferenceTransformationMatrix=[f"{v:.12g}" for v in np.ravel(step)],
            )
            for step in steps
        ]
        item = _item(FrameOfReferenceUID=frame)
        item.MatrixRegistrationSequence = [_item(MatrixSequence=sequence)]
        out.RegistrationSequence.append(item)
    return out


def roi(number: int = 4) -> RegionRef:
    """ROI 4 of `structures`, or another."""
    return RegionRef("lesions[0].tumor", sop_instance_uid=uid_of("rt"), roi_number=number)


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


@dataclass(frozen=True)
class MadeCase:
    """A plan folder, a baseline and a follow-up of one patient, small and whole; tests spoil them."""

    folder: Path
    baseline_series: MadeSeries
    followup_series: MadeSeries
    document: dict[str, Any]

    @property
    def plan(self) -> Path:
        return self.folder / "plan" / "plan.json"

    @property
    def baseline(self) -> Path:
        return self.folder / "baseline"

    @property
    def followup(self) -> Path:
        return self.folder / "followup"

    def write_plan(self, document: object | None = None) -> Path:
        self.plan.parent.mkdir(parents=True, exist_ok=True)
        self.plan.write_text(json.dumps(self.document if document is None else document))
        return self.plan


@pytest.fixture
def kit() -> SimpleNamespace:
    """What the tests make series, objects and files with."""
    return SimpleNamespace(
        Series=MadeSeries,
        ramp=ramp,
        save=save,
        write=write,
        segmentation=segmentation,
        structures=structures,
        registration=registration,
        roi=roi,
        item=_item,
        uid_of=uid_of,
        frame=FRAME_UID,
    )


@pytest.fixture
def baseline(tmp_path: Path) -> Geometry:
    """The grid of a small scan: 20 slices 2 mm apart, voxels of 1.5 by 1.25 mm."""
    write(MadeSeries(np.zeros((20, 24, 24), np.int16)).images(), tmp_path / "baseline")
    return read_series(scan([tmp_path / "baseline"]).headers).acquisitions[0].geometry


@pytest.fixture
def read(tmp_path: Path, baseline: Geometry) -> Callable[..., Mask]:
    """Reads a region after the data sets given were written into the plan's folder."""

    def reader(
        ref: RegionRef,
        *datasets: Dataset,
        grid: Geometry | None = None,
        patient: str = "MADE-1",
        syntax: UID = ExplicitVRLittleEndian,
    ) -> Mask:
        (tmp_path / "plan").mkdir(exist_ok=True)
        for number, dataset in enumerate(datasets):
            save(dataset, tmp_path / "plan" / f"object {number}", syntax)
        objects = {h.text("SOPInstanceUID"): h for h in scan([tmp_path / "plan"]).headers}
        links = tuple(h for h in objects.values() if h.text("SOPClassUID") in REGISTRATION_CLASSES)
        return read_region(ref, RegionSource(tmp_path / "plan", patient, objects, links), grid or baseline)

    return reader


@pytest.fixture
def made_case(tmp_path: Path) -> MadeCase:
    values = np.full((20, 24, 24), 100, np.int16)
    baseline = MadeSeries(values, name="pv", study="before", tags={"ContrastBolusAgent": "IOHEXOL"})
    followup = MadeSeries(
        values, name="pv after", study="after", date="20260402", tags={"ContrastBolusAgent": "IOHEXOL"}
    )
    tumor = np.zeros(values.shape, bool)
    tumor[8:12, 10:14, 10:15] = True
    region = {"sop_instance_uid": uid_of(baseline.patient_id, "plan"), "segment_number": 1}
    document = {
        "plan_id": "P1",
        "patient_id": baseline.patient_id,
        "organ": "liver",
        "procedure": {"date": "20260310", "energy": "cryoablation"},
        "baseline": {
            "study_instance_uid": uid_of(baseline.patient_id, "before"),
            "series_instance_uid": uid_of(baseline.patient_id, "before", "pv"),
        },
        "lesions": [
            {
                "lesion_id": "L1",
                "required_margin_mm": 5.0,
                "tumor": region,
                "applicators": [{"model": "X", "tip_lps_mm": [0, 0, 0], "entry_lps_mm": [0, -50, 0]}],
                "protocol": [{"phase": "freeze", "duration_s": 600}],
            }
        ],
    }
    case = MadeCase(tmp_path, baseline, followup, document)
    write(baseline.images(), case.baseline)
    write(followup.images(), case.followup)
    save(segmentation(baseline, {1: tumor}), case.plan.parent / "seg")
    case.write_plan()
    return case
