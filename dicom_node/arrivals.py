"""Instances as they enter their studies in the ledger, and leave them: within a transaction of the ledger's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, case, delete, func, select, update

from dicom_node.records import ARCHIVE_PRIORITY, IMAGE_CLASSES, ROUTED_PRIORITY, Arrival, Study
from dicom_node.schema import INSTANCES, STUDIES, insert_new


def enter(connection: Connection, arrivals: Iterable[Arrival], *, now: float) -> set[str]:
    """The SOP Instance UIDs of those that are new; of two with one UID the first goes. now: seconds since the epoch."""
    first: dict[str, Arrival] = {}
    for arrival in arrivals:
        first.setdefault(arrival.identity.sop_instance_uid, arrival)
    if not first:
        return set()
    insert = insert_new(connection, INSTANCES).returning(INSTANCES.c.sop_instance_uid)
    new = set(connection.execute(insert, [_row(arrival, now) for arrival in first.values()]).scalars())
    studies: dict[str, list[Arrival]] = {}
    for uid in new:
        studies.setdefault(first[uid].identity.study_instance_uid, []).append(first[uid])
    for study_instance_uid in sorted(studies):  # always in the same order: two that write wait for one another
        _enlarge(connection, study_instance_uid, studies[study_instance_uid], now=now)
    return new


def leave(connection: Connection, sop_instance_uid: str) -> str:
    """Take an instance out of its study, whose UID is returned; the study stays, also without any."""
    mine = INSTANCES.c.sop_instance_uid == sop_instance_uid
    row = connection.execute(select(INSTANCES).where(mine)).mappings().one()
    connection.execute(delete(INSTANCES).where(mine))
    if row["sop_class_uid"] in IMAGE_CLASSES:
        others = (INSTANCES.c.study_instance_uid == row["study_instance_uid"]) & (INSTANCES.c.acquired != "")
        first = select(func.coalesce(func.min(INSTANCES.c.acquired), "")).where(others).scalar_subquery()
        study = STUDIES.c.study_instance_uid == row["study_instance_uid"]
        connection.execute(update(STUDIES).where(study).values(images=STUDIES.c.images - 1, acquired=first))
    return str(row["study_instance_uid"])


def raise_revision(connection: Connection, study_instance_uid: str) -> None:
    """Its study is assessed anew."""
    mine = STUDIES.c.study_instance_uid == study_instance_uid
    connection.execute(update(STUDIES).where(mine).values(revision=STUDIES.c.revision + 1))


def _row(arrival: Arrival, now: float) -> dict[str, Any]:
    identity = arrival.identity
    return {
        "sop_instance_uid": identity.sop_instance_uid,
        "sop_class_uid": identity.sop_class_uid,
        "study_instance_uid": identity.study_instance_uid,
        "series_instance_uid": identity.series_instance_uid,
        "path": str(arrival.path),
        "sha256": arrival.sha256,
        "arrived_at": now,
        "acquired": identity.acquired if identity.is_image else "",
        "seen": arrival.seen,
        "head_sha256": arrival.head_sha256,
        "received_from": arrival.received_from or None,
    }


def _enlarge(connection: Connection, study_instance_uid: str, arrivals: Sequence[Arrival], *, now: float) -> None:
    """Count new instances to their study. A new image reopens it, as a new revision if it was complete."""
    routed = not all(arrival.path.is_absolute() for arrival in arrivals)  # what is read in place is an archive's
    priority = ROUTED_PRIORITY if routed else ARCHIVE_PRIORITY
    study = Study(study_instance_uid, arrivals[0].identity.patient_id, "", 0, 1, False, now, priority=priority)
    images = [arrival.identity for arrival in arrivals if arrival.identity.is_image]
    changed: dict[str, Any] = {"last_arrival": now}
    if routed:
        changed["priority"] = ROUTED_PRIORITY
    if issuer := next((x.identity.issuer_of_patient_id for x in arrivals if x.identity.issuer_of_patient_id), ""):
        known = STUDIES.c.issuer_of_patient_id
        changed["issuer_of_patient_id"] = case((known == "", issuer), else_=known)
    if images:
        changed["images"] = STUDIES.c.images + len(images)
        changed["revision"] = case((STUDIES.c.complete, STUDIES.c.revision + 1), else_=STUDIES.c.revision)
        changed |= {"complete": False, "held": "", "released": False}
    if acquired := min((identity.acquired for identity in images if identity.acquired), default=""):
        first = (STUDIES.c.acquired == "") | (STUDIES.c.acquired > acquired)
        changed["acquired"] = case((first, acquired), else_=STUDIES.c.acquired)
    connection.execute(insert_new(connection, STUDIES).values(vars(study)))
    connection.execute(update(STUDIES).where(STUDIES.c.study_instance_uid == study_instance_uid).values(changed))
