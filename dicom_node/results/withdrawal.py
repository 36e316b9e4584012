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
    """The results that a new one supersedes. report: the last one's; stands: whether that was not withdrawn yet.

    replaced: what it replaced itself; withdrawal: the file by which it did. objects: of all of them, without pixels.
    """

    report: Replaced
    stands: bool
    replaced: Replaced | None
    objects: tuple[Dataset, ...]
    withdrawal: Path | None


def read_earlier(folders: Sequence[Path]) -> Earlier | None:
    """The results in these result folders, the last one first; None where there is none.

    All are withdrawn anew, as it is not sure which withdrawal a PACS has got.
    """
    found = [(folder, _objects(folder)) for folder in folders]
    together = tuple(x for _, objects in found for x in objects)
    for folder, objects in found:
        file = folder / "dicom" / _FILE
        withdrawal = file if file.is_file() else None
        report = next((x for x in objects if x.SOPClassUID == Comprehensive3DSRStorage), None)
        if report is not None:
            own = Replaced(str(report.SOPInstanceUID), str(report.SeriesInstanceUID))
            replaced = _referenced(report.get("PredecessorDocumentsSequence"))
            return Earlier(own, True, replaced, together, withdrawal)
        if withdrawal is not None:  # the study was refused, and nothing stands in place of what was there before
            named = _named_in(withdrawal)
            if named is not None:
                return Earlier(named, False, None, together, None)
    return None


def _objects(folder: Path) -> list[Dataset]:
    """What a result folder holds but for its withdrawal of others; nothing where that cannot be read."""
    try:
        return [dcmread(path, stop_before_pixels=True) for path in _files(folder)]
    except BROKEN:
        _LOG.exception("an earlier result cannot be read, and is not withdrawn by the one that supersedes it")
        return []


def count_objects(folders: Sequence[Path]) -> int:
    """How many objects these result folders hold but for their withdrawals, readable or not."""
    return sum(len(_files(folder)) for folder in folders)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "dicom").glob("*.dcm") if path.name != _FILE)


def succeeding(identifiers: Identifiers, earlier: Earlier) -> Identifiers:
    """The identifiers of a result that supersedes another: the earlier one's where both are the same answer."""
    same = replace(identifiers, replaces=earlier.replaced)
    if earlier.stands and same.instance_uid("report") == earlier.report.sop_instance_uid:
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


def _named_in(withdrawal: Path) -> Replaced | None:
    """The report that a withdrawal names; None where it cannot be read."""
    try:
        return _referenced(dcmread(withdrawal).CurrentRequestedProcedureEvidenceSequence)
    except BROKEN:
        _LOG.exception("an earlier withdrawal cannot be read")
        return None


def _referenced(evidence: Sequence[Dataset] | None) -> Replaced | None:
    """The report that a sequence of hierarchical references names."""
    for study in evidence or ():
        for series in study.ReferencedSeriesSequence:
            for item in series.ReferencedSOPSequence:
                if item.ReferencedSOPClassUID == Comprehensive3DSRStorage:
                    return Replaced(str(item.ReferencedSOPInstanceUID), str(series.SeriesInstanceUID))
    return None
