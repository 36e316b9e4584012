"""What a PACS has of a study that does not lie here: CT and MR images only, as no other object is assessed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from dicom_node.exchange.answers import NoAnswer, RemoteInstance
from dicom_node.exchange.peer import Query
from dicom_node.records import IMAGE_CLASSES, Instance


@dataclass(frozen=True)
class Lack:
    """Images of one series that are not here. whole: whether that is every instance of it."""

    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]
    whole: bool


def lacking(query: Query, study_instance_uid: str, here: Sequence[Instance]) -> list[Lack]:
    """The images that the PACS has and the node lacks; empty where it lacks none. here: the study's instances.

    Raises `NoAnswer` also where the PACS has no image of the study, or lists fewer than it counts: then it cannot say
    when that is complete.
    """
    known: dict[str, set[str]] = defaultdict(set)
    for instance in here:
        known[instance.series_instance_uid].add(instance.sop_instance_uid)
    series = [item for item in query.series(study_instance_uid) if item.modality in ("CT", "MR")]
    if not series:
        raise NoAnswer("the PACS has no images of this study")
    found = []
    for item in series:
        mine = known[item.series_instance_uid]
        # Asked one by one, also where the numbers agree: they may be others, and an MR series may be raw data, a CT
        # series a dose page.
        there = query.instances(study_instance_uid, item.series_instance_uid)
        listed = {x.sop_instance_uid for x in there}
        if len(listed) < item.instances:
            raise NoAnswer(f"the PACS counts {item.instances} instances of a series, and lists {len(listed)}")
        absent = tuple(x.sop_instance_uid for x in there if _is_image(x) and x.sop_instance_uid not in mine)
        if absent:
            found.append(Lack(item.series_instance_uid, absent, len(absent) == len(there)))
    return found


def _is_image(instance: RemoteInstance) -> bool:
    return not instance.sop_class_uid or instance.sop_class_uid in IMAGE_CLASSES
