"""The unique identifiers of a result, which are the same for the same answer, so that a PACS is not filled twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import numpy as np

from dicom_node.results.record import software_version
from dicom_node.study import StudyCase
from dicom_node.uids import derived_uid
from pipeline.assessment import Assessment
from pipeline.volume import Mask

Kind = Literal["segmentation", "report", "capture", "document", "simulation", "withdrawal"]

MANUFACTURER = "Marginwatch"
MODEL = "Marginwatch"

#: Series number and description; the numbers lie beyond those that scanners give.
SERIES: dict[Kind, tuple[int, str]] = {
    "segmentation": (9101, "Marginwatch ablation zone and tumor"),
    "report": (9102, "Marginwatch measurements"),
    "capture": (9103, "Marginwatch pictures, not for primary diagnosis"),
    "document": (9104, "Marginwatch report, not for primary diagnosis"),
    "simulation": (9105, "Marginwatch simulated ablation zone"),
    "withdrawal": (9106, "Marginwatch: an earlier result is withdrawn"),
}

_NAMESPACE = UUID("6f0d1b5e-6a0c-5b1e-9d53-3c1f0e2a7b94")


@dataclass(frozen=True)
class Replaced:
    """A report that another one takes the place of, in the same study."""

    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True)
class Identifiers:
    """One answer's UIDs and what they are made from. created: local time that the objects say they were made at.

    replaces: the report whose place this answer's takes; that is part of who it is, as the report names it.
    """

    study_instance_uid: str
    series_instance_uid: str
    plan_id: str
    software_version: str
    content_sha256: str
    created: datetime
    replaces: Replaced | None = None

    def series_uid(self, kind: Kind) -> str:
        """The series of one kind of object of this very answer."""
        return self._uid("series", kind)

    def instance_uid(self, kind: Kind, number: int = 1) -> str:
        """The n-th object of a kind."""
        return self._uid("instance", kind, str(number))

    def tracking_uid(self, lesion_id: str) -> str:
        """The same lesion's in every object and at every follow-up of the plan."""
        return derived_uid(_NAMESPACE, "lesion", self.plan_id, lesion_id)

    @property
    def device_uid(self) -> str:
        """This software in this version."""
        return derived_uid(_NAMESPACE, "device", self.software_version)

    def _uid(self, *parts: str) -> str:
        who = (self.study_instance_uid, self.series_instance_uid, self.plan_id, self.software_version)
        after = () if self.replaces is None else (self.replaces.sop_instance_uid,)
        return derived_uid(_NAMESPACE, *parts, *who, self.content_sha256, *after)


def identifiers_of(
    assessment: Assessment, study: StudyCase, document: Mapping[str, Any], created: datetime
) -> Identifiers:
    """The identifiers of one answer. document: from `record_of`; the moment of writing is no part of who it is."""
    return Identifiers(
        study.study_instance_uid,
        study.series_instance_uid,
        study.case.plan.plan_id,
        software_version(),
        _content_sha256(assessment, document),
        created,
    )


def _content_sha256(assessment: Assessment, document: Mapping[str, Any]) -> str:
    masks = [mask for lesion in assessment.lesions for mask in (lesion.zone, lesion.tumor, lesion.uncovered)]
    return content_sha256(document, masks)


def content_sha256(document: Mapping[str, Any], masks: Iterable[Mask | None]) -> str:
    """The hash of an answer: its document and its regions."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for mask in masks:
        digest.update(b"-" if mask is None else np.packbits(mask.voxels).tobytes())
    return digest.hexdigest()
