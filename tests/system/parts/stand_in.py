"""The child process of a test worker: in place of an assessment it sleeps and writes a small result folder.

The objects' UIDs are made from the attempt's own folder, so a result that was made and sent twice shows in the PACS.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian, generate_uid

from dicom_node.child import answer_one
from dicom_node.durable import whole_folder
from dicom_node.refusal import Refused

OBJECTS = 2


def assess(_plan: Path, *, followup: list[Path], out: Path, **_: Any) -> dict[str, Any]:
    study_instance_uid = followup[0].parts[-3]
    time.sleep(float(sys.argv[1]))
    document = {"schema": "marginwatch/assessment/1", "study_instance_uid": study_instance_uid, "outcome": "complete"}
    document |= {"needs_review": False, "reasons": [], "lesions": [], "days_since_procedure": 33}
    try:
        with whole_folder(out) as folder:
            (folder / "dicom").mkdir()
            for number in range(OBJECTS):
                write_object(folder / "dicom" / f"{number}.dcm", study_instance_uid, out.name, number)
            (folder / "assessment.json").write_text(json.dumps(document))
    except OSError as problem:  # as `write_results`
        raise Refused("cannot_write_results", f"The results could not be written: {problem.strerror}.") from None
    return document


def write_object(file: Path, study_instance_uid: str, attempt: str, number: int) -> None:
    dataset = Dataset()
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[study_instance_uid, attempt, str(number)])
    dataset.StudyInstanceUID = study_instance_uid
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[study_instance_uid, attempt])
    dataset.PatientID, dataset.PatientName, dataset.Modality = "MADE", "Made^Up", "DOC"
    dataset.EncapsulatedDocument = b"%PDF-made"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(file, dataset, enforce_file_format=True)


if __name__ == "__main__":
    answer_one(assess)
