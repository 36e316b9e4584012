"""One slice of the phantom as a CT image."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from dicom_node.uids import derived_uid
from pipeline.phantom import Phantom
from pipeline.phantom_body import Phase
from pipeline.volume import Volume

PATIENT_NAME = "PHANTOM^LIVER"
_NAMESPACE = UUID("1c2b6f0e-55c6-5a2f-8f0e-0c7a5b0a6f11")
_BIRTH_DATE = date(1960, 1, 1)
_PHASE_WORDS: dict[Phase, tuple[str, int | None]] = {
    "unenhanced": ("LIVER WITHOUT CONTRAST", None),
    "arterial": ("LIVER ARTERIAL", 35),
    "portal_venous": ("LIVER PORTAL VENOUS", 70),
}
"""Series description, and seconds from the injection to the scan."""


@dataclass(frozen=True)
class PhantomStudy:
    """The identity of one scan of the phantom."""

    uid: str
    series_uid: str
    patient_id: str
    taken: datetime
    phase: Phase
    number: int


def image_of(phantom: Phantom, volume: Volume, study: PhantomStudy, k: int) -> FileDataset:
    """The k-th slice of the volume without its pixel data, which are 12 bits, stored as HU + 1024."""
    uid = uid_of(phantom, "image", study.number, k)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SpecificCharacterSet = "ISO_IR 192"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, uid
    _describe_study(image, study)
    _describe_scan(image, study)
    _describe_place(image, volume, k)
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = volume.voxels.shape[1:]
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.WindowCenter, image.WindowWidth = 60, 350
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = -1024, 1, "HU"
    return image


def _describe_study(image: Dataset, study: PhantomStudy) -> None:
    image.PatientName, image.PatientID = PATIENT_NAME, study.patient_id
    image.PatientBirthDate, image.PatientSex = f"{_BIRTH_DATE:%Y%m%d}", "O"
    image.StudyInstanceUID, image.SeriesInstanceUID = study.uid, study.series_uid
    day, clock = f"{study.taken:%Y%m%d}", f"{study.taken:%H%M%S}"
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = day
    image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = clock
    image.AccessionNumber, image.StudyID = f"P{study.taken:%Y%m%d}", "1"
    image.ReferringPhysicianName = ""
    image.StudyDescription = "CT ABDOMEN, MADE PHANTOM"
    image.SeriesDescription = _PHASE_WORDS[study.phase][0]
    image.SeriesNumber, image.AcquisitionNumber = 3, 1


def _describe_scan(image: Dataset, study: PhantomStudy) -> None:
    image.Modality, image.Manufacturer, image.ManufacturerModelName = "CT", "Marginwatch", "Phantom"
    image.BodyPartExamined, image.ProtocolName, image.PatientPosition = "ABDOMEN", "LIVER", "FFS"
    image.KVP, image.ConvolutionKernel = 120, "STANDARD"
    delay_s = _PHASE_WORDS[study.phase][1]
    if delay_s is not None:
        image.ContrastBolusAgent = "IOHEXOL"
        image.ContrastBolusStartTime = f"{study.taken - timedelta(seconds=delay_s):%H%M%S}"


def _describe_place(image: Dataset, volume: Volume, k: int) -> None:
    geometry = volume.geometry
    slice_mm, row_mm, column_mm = geometry.spacing_mm.tolist()
    corner = geometry.lps_of((k, 0, 0))
    axes = geometry.lps_from_index[:3, [2, 1]] / (column_mm, row_mm)
    image.InstanceNumber = k + 1
    image.FrameOfReferenceUID, image.PositionReferenceIndicator = geometry.frame_uid, ""
    image.ImagePositionPatient = [_decimal(v) for v in corner]
    image.ImageOrientationPatient = [_decimal(v) for v in axes.T.ravel()]
    image.PixelSpacing = [_decimal(row_mm), _decimal(column_mm)]
    image.SliceThickness, image.SliceLocation = _decimal(slice_mm), _decimal(corner[2])


def _decimal(value: float) -> DSfloat:
    return DSfloat(round(float(value), 6) + 0.0, auto_format=True)


def uid_of(phantom: Phantom, *parts: object) -> str:
    """Always the same UID for the same phantom and parts."""
    spec = phantom.spec
    who = (spec.name, spec.seed, spec.patient_id, spec.baseline_grid.shape, *parts)
    return derived_uid(_NAMESPACE, *who)
