"""When a study is assessed anew: which earlier result the new one supersedes, and what if there is no new one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from dicom_node.durable import whole_folder
from dicom_node.ledger import Ledger
from dicom_node.records import AssessmentRecord


def superseded_by(record: AssessmentRecord, ledger: Ledger) -> list[AssessmentRecord]:
    """The earlier assessments of the same study and plan of which a PACS may hold objects; the last one first."""
    earlier = [x for x in ledger.assessments_of(record.study_instance_uid, record.plan_id) if x.number < record.number]
    tried = [x for x in earlier if _tried(x, ledger)]
    return sorted(tried, key=lambda x: x.number, reverse=True)


def withdraw(record: AssessmentRecord, ledger: Ledger, data_folder: Path) -> list[str]:
    """Where it is to be sent that the earlier results hold no more, after that was written into the record's folder.

    For an assessment that was refused: it brings no result in their place. Empty where there are none.
    """
    earlier = superseded_by(record, ledger)
    if not earlier:
        return []
    # Loaded here and not above: highdicom is slow to load, and seldom needed in the worker.
    from dicom_node.results.identifiers import Identifiers
    from dicom_node.results.record import software_version
    from dicom_node.results.withdrawal import read_earlier, write_withdrawal

    found = read_earlier([data_folder / x.folder for x in earlier])
    if found is None or not found.objects:
        return []
    created = datetime.now().astimezone().replace(tzinfo=None)
    identifiers = Identifiers(
        record.study_instance_uid, "", record.plan_id, software_version(), "withdrawn", created, replaces=found.report
    )
    with whole_folder(data_folder / record.folder) as fresh:
        (fresh / "dicom").mkdir()
        write_withdrawal(found, identifiers, fresh / "dicom")
    return sorted({destination for x in earlier for destination in _tried(x, ledger)})


def _tried(record: AssessmentRecord, ledger: Ledger) -> list[str]:
    """The destinations that its objects were sent to, with success or without."""
    return [send.destination for send in ledger.sends(record.assessment_id) if send.state != "pending"]
