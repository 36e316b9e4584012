"""An earlier result of the same study is withdrawn: a Key Object Selection "Rejected for Quality Reasons" names it.

That is how IHE Imaging Object Change Management tells archives and viewers what is not to be shown any more.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from highdicom import ko, sr
from pydicom import Dataset, dcmread
from pydicom.uid import Comprehensive3DSRStorage

from dicom_node import codes
from dicom_node.broken import BROKEN
from dicom_node.results.equipment import maker, processing_equipment, stamp
from dicom_node.results.identifiers import MANUFACTURER, MODEL, SERIES, Identifiers, Replaced

_LOG = logging.getLogger("marginwatch.results")
_FILE = "withdrawal.dcm"
_WHY = "Superseded: images, plan or earlier results changed after this result was made. See the newer report, if any."


@dataclass(frozen=True, eq=False)
class Earlier:
    """The result that a new one supersedes. objects: without pixels; none where they were withdrawn before.

    replaced: what it replaced itself; withdrawal: the file by which it did.
    """

    report: Replaced
    replaced: Replaced | None
    objects: tuple[Dataset, ...]
    withdrawal: Path | None


def read_earlier(folder: Path) -> Earlier | None:
    """The result in a result folder, or the one that is only withdrawn there; None where there is neither."""
    file = folder / "dicom" / _FILE
    withdrawal = file if file.is_file() else None
    try:
        objects = tuple(
            dcmread(path, stop_before_pixels=True)
            for path in sorted((folder / "dicom").glob("*.dcm"))
            if path.name != _FILE
        )
        report = next((x for x in objects if x.SOPClassUID == Comprehensive3DSRStorage), None)
        if report is not None:
            own = Replaced(str(report.SOPInstanceUID), str(report.SeriesInstanceUID))
            return Earlier(own, _referenced(report.get("PredecessorDocumentsSequence")), objects, withdrawal)
        if withdrawal is not None:
            named = _referenced(dcmread(withdrawal).CurrentRequestedProcedureEvidenceSequence)
            return None if named is None else Earlier(named, None, (), None)
    except BROKEN:
        _LOG.exception("an earlier result cannot be read, and is not named by the one that supersedes it")
    return None


def succeeding(identifiers: Identifiers, earlier: Earlier) -> Identifiers:
    """The identifiers of a result that supersedes another: the earlier one's where both are the same answer."""
    same = replace(identifiers, replaces=earlier.replaced)
    if earlier.objects and same.instance_uid("report") == earlier.report.sop_instance_uid:
        return same
    return replace(identifiers, replaces=earlier.report)


def write_withdrawal(earlier: Earlier, identifiers: Identifiers, folder: Path) -> None:
    """Writes `withdrawal.dcm` into a folder of results, if there is something to withdraw."""
    if identifiers.replaces != earlier.report:  # the same answer: it stands, and so does what it withdrew
        if earlier.withdrawal is not None:
            shutil.copyfile(earlier.withdrawal, folder / _FILE)
    elif earlier.objects:
        made = withdrawal(earlier.objects, identifiers)
        made.save_as(folder / _FILE, enforce_file_format=True)


def withdrawal(objects: Sequence[Dataset], identifiers: Identifiers) -> ko.KeyObjectSelectionDocument:
    """The Key Object Selection that withdraws the objects, all of one study."""
    device = sr.DeviceObserverIdentifyingAttributes(
        identifiers.device_uid, name=MODEL, manufacturer_name=MANUFACTURER, model_name=MODEL
    )
    content = ko.KeyObjectSelection(
        document_title=codes.REJECTED_FOR_QUALITY,
        referenced_objects=objects,
        observer_device_context=sr.ObserverContext(codes.DEVICE_OBSERVER, device),
        description=_WHY,
    )
    series_number, description = SERIES["withdrawal"]
    made = ko.KeyObjectSelectionDocument(
        evidence=objects,
        content=content,
        series_instance_uid=identifiers.series_uid("withdrawal"),
        series_number=series_number,
        sop_instance_uid=identifiers.instance_uid("withdrawal"),
        instance_number=1,
        series_description=description,
        specific_character_set="ISO_IR 192",
        contributing_equipment=[processing_equipment(identifiers)],
        **maker(identifiers),
    )
    for item in made.ContentSequence:
        if item.ValueType == "IMAGE":  # TID 2010 forbids the purpose that highdicom gives them
            del item.ConceptNameCodeSequence
    stamp(made, objects[0], identifiers)
    return made


def _referenced(evidence: Sequence[Dataset] | None) -> Replaced | None:
    """The report that a sequence of hierarchical references names."""
    for study in evidence or ():
        for series in study.ReferencedSeriesSequence:
            for item in series.ReferencedSOPSequence:
                if item.ReferencedSOPClassUID == Comprehensive3DSRStorage:
                    return Replaced(str(item.ReferencedSOPInstanceUID), str(series.SeriesInstanceUID))
    return None
