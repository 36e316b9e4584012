"""When a study is assessed anew: which earlier result the new one supersedes, and what if there is no new one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from dicom_node.durable import whole_folder
from dicom_node.ledger import Ledger
from dicom_node.records import AssessmentRecord


def superseded_by(record: AssessmentRecord, ledger: Ledger) -> AssessmentRecord | None:
    """The last earlier assessment of the same study and plan of which a destination may hold objects."""
    earlier = [x for x in ledger.assessments_of(record.study_instance_uid, record.plan_id) if x.number < record.number]
    for before in sorted(earlier, key=lambda x: x.number, reverse=True):
        if any(send.state != "pending" for send in ledger.sends(before.assessment_id)):
            return before
    return None


def withdraw(record: AssessmentRecord, ledger: Ledger, data_folder: Path) -> list[str]:
    """Where it is to be sent that the earlier result holds no more, after that was written into the record's folder.

    For an assessment that was refused: it brings no result in place of the earlier one. Empty where there is none.
    """
    earlier = superseded_by(record, ledger)
    if earlier is None:
        return []
    # Loaded here and not above: highdicom is slow to load, and seldom needed in the worker.
    from dicom_node.results.identifiers import Identifiers
    from dicom_node.results.record import software_version
    from dicom_node.results.withdrawal import read_earlier, write_withdrawal

    found = read_earlier(data_folder / earlier.folder)
    if found is None or not found.objects:
        return []
    created = datetime.now().astimezone().replace(tzinfo=None)
    identifiers = Identifiers(
        record.study_instance_uid, "", record.plan_id, software_version(), "withdrawn", created, replaces=found.report
    )
    with whole_folder(data_folder / record.folder) as fresh:
        (fresh / "dicom").mkdir()
        write_withdrawal(found, identifiers, fresh / "dicom")
    return [send.destination for send in ledger.sends(earlier.assessment_id) if send.state != "pending"]
