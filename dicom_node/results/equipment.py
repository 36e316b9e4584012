"""What every DICOM result says of its maker and its moment, and of the patient and study that it belongs to."""

from __future__ import annotations

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom import Dataset
from pydicom.valuerep import DA, TM

from dicom_node import codes
from dicom_node.results.identifiers import MANUFACTURER, MODEL, Identifiers
from dicom_node.results.sources import SHARED


def maker(identifiers: Identifiers) -> dict[str, str]:
    """The arguments by which highdicom names the equipment."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL,
        "software_versions": identifiers.software_version,
        "device_serial_number": identifiers.device_uid,
    }


def private_scheme() -> CodingSchemeIdentificationItem:
    """The declaration of the private coding scheme."""
    return CodingSchemeIdentificationItem(
        codes.PRIVATE_SCHEME,
        name=codes.PRIVATE_SCHEME_NAME,
        responsible_organization=codes.PRIVATE_SCHEME_ORGANIZATION,
    )


def processing_equipment(
    identifiers: Identifiers, contribution: str = "Registration, segmentation and margin measurement"
) -> hd.ContributingEquipment:
    """This software as the equipment that processed the images (IHE AI Results wants it with its device UID)."""
    item = hd.ContributingEquipment(
        MANUFACTURER,
        codes.PROCESSING_EQUIPMENT,
        manufacturer_model_name=MODEL,
        software_versions=identifiers.software_version,
        contribution_description=contribution,
    )
    item.DeviceUID = identifiers.device_uid
    return item


def stamp(made: Dataset, head: Dataset, identifiers: Identifiers) -> None:
    """Completes an object in place: patient and study as in the scan, and one moment of creation for all results."""
    for keyword in SHARED:
        if keyword in head:
            made[keyword] = head[keyword]
    made.InstanceCreationDate = made.ContentDate = DA(identifiers.created.date())
    made.InstanceCreationTime = made.ContentTime = TM(identifiers.created.time().replace(microsecond=0))


def reference(head: Dataset) -> Dataset:
    """An item that refers to one object."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = head.SOPClassUID, head.SOPInstanceUID
    return item
