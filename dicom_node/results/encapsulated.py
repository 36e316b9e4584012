"""The PDF report as a DICOM Encapsulated PDF in the follow-up's study."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from dicom_node import codes
from dicom_node.results.equipment import maker, processing_equipment, reference, stamp
from dicom_node.results.identifiers import SERIES, Identifiers


def encapsulated_pdf(pdf: bytes, head: Dataset, identifiers: Identifiers) -> Dataset:
    """The object that holds the PDF."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = identifiers.instance_uid("document")
    made.Modality = "DOC"
    made.SeriesInstanceUID = identifiers.series_uid("document")
    made.SeriesNumber, made.SeriesDescription = SERIES["document"]
    made.InstanceNumber = 1
    equipment = maker(identifiers)
    made.Manufacturer, made.ManufacturerModelName = equipment["manufacturer"], equipment["manufacturer_model_name"]
    made.SoftwareVersions, made.DeviceSerialNumber = equipment["software_versions"], equipment["device_serial_number"]
    made.ContributingEquipmentSequence = [processing_equipment(identifiers)]
    made.ConversionType = "WSD"
    made.AcquisitionDateTime = ""
    made.BurnedInAnnotation = "YES"  # the patient ID is printed on the page
    made.RecognizableVisualFeatures = "NO"
    made.DocumentTitle = "Ablation follow-up, not for primary diagnosis"
    made.ConceptNameCodeSequence = [_item(codes.REPORT_TITLE)]
    made.SourceInstanceSequence = [reference(head)]
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.EncapsulatedDocumentLength = len(pdf)
    made.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    stamp(made, head, identifiers)
    return made


def _item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
