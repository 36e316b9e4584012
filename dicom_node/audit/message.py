"""One audit message as XML, in the schema of DICOM PS3.15 A.5.1. Pure: no clock, no file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from xml.etree import ElementTree as ET

#: What XML 1.0 has no way to hold.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST_TEXT = 1000
#: "Application Server Process", of A.5.1.2.1.
_SOURCE_TYPE = "4"


@dataclass(frozen=True)
class Code:
    """A coded value; scheme: DCM where nothing else is said."""

    value: str
    meaning: str
    scheme: str = "DCM"


#: Events (CID 400) and their types (CID 401).
APPLICATION_ACTIVITY = Code("110100", "Application Activity")
INSTANCES_ACCESSED = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
SECURITY_ALERT = Code("110113", "Security Alert")
USER_AUTHENTICATION = Code("110114", "User Authentication")
APPLICATION_START = Code("110120", "Application Start")
APPLICATION_STOP = Code("110121", "Application Stop")
LOGIN = Code("110122", "Login")
LOGOUT = Code("110123", "Logout")
RESTRICTED_FUNCTION = Code("110132", "Use of Restricted Function")
USER_ATTRIBUTES_CHANGED = Code("110137", "User Security Attributes Changed")
#: Roles (CID 402).
APPLICATION = Code("110150", "Application")
DESTINATION = Code("110152", "Destination Role ID")
SOURCE = Code("110153", "Source Role ID")
_STUDY_UID = Code("110180", "Study Instance UID")
_PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")
_URI = Code("12", "URI", "RFC-3881")

#: Create, read, update, delete, execute.
Action = Literal["C", "R", "U", "D", "E"]
SUCCESS, MINOR_FAILURE, SERIOUS_FAILURE = "0", "4", "8"


@dataclass(frozen=True)
class Event:
    """What happened. at: seconds since the epoch; description: why it failed, in a few words."""

    kind: Code
    action: Action
    at: float
    types: tuple[Code, ...] = ()
    outcome: str = SUCCESS
    description: str = ""


@dataclass(frozen=True)
class Participant:
    """A person or a program that took part. address: where it spoke from or was spoken to, a host name or an IP."""

    user_id: str
    is_requestor: bool
    roles: tuple[Code, ...] = ()
    address: str = ""
    alternative_id: str = ""


@dataclass(frozen=True)
class StudyPart:
    """The instances of one study that an act was about: how many of each SOP class, empty where that is not known; and
    of how many more it failed."""

    study_instance_uid: str
    patient_id: str
    instances: Mapping[str, int] = field(default_factory=dict)
    failed: int = 0


def audit_message(
    event: Event, participants: Sequence[Participant], *, source: str, subjects: Sequence[StudyPart | str] = ()
) -> str:
    """The message on one line. source: the node's name; subjects: studies with their patients, or what was used."""
    root = ET.Element("AuditMessage")
    _add_event(root, event)
    for participant in participants:
        _add_participant(root, participant)
    told_by = ET.SubElement(root, "AuditSourceIdentification", AuditSourceID=_token(source))
    ET.SubElement(told_by, "AuditSourceTypeCode", {"csd-code": _SOURCE_TYPE})
    for subject in subjects:
        if isinstance(subject, StudyPart):
            _add_study(root, subject)
            _add_object(root, subject.patient_id, _PATIENT_NUMBER, ("1", "1"))
        else:
            _add_object(root, subject, _URI, ("2", "13"))
    return ET.tostring(root, encoding="unicode")


def _add_event(root: ET.Element, event: Event) -> None:
    at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds")
    attributes = {"EventActionCode": event.action, "EventDateTime": at, "EventOutcomeIndicator": event.outcome}
    element = ET.SubElement(root, "EventIdentification", attributes)
    _add_code(element, "EventID", event.kind)
    for kind in event.types:
        _add_code(element, "EventTypeCode", kind)
    if event.description:
        ET.SubElement(element, "EventOutcomeDescription").text = _token(event.description)


def _add_participant(root: ET.Element, participant: Participant) -> None:
    attributes = {"UserID": _token(participant.user_id)}
    if participant.alternative_id:
        attributes["AlternativeUserID"] = _token(participant.alternative_id)
    attributes["UserIsRequestor"] = "true" if participant.is_requestor else "false"
    if participant.address:
        is_ip = re.fullmatch(r"[0-9.]+|[0-9a-fA-F:.%]*:[0-9a-zA-Z:.%]*", participant.address)
        attributes["NetworkAccessPointID"] = _token(participant.address)
        attributes["NetworkAccessPointTypeCode"] = "2" if is_ip else "1"
    element = ET.SubElement(root, "ActiveParticipant", attributes)
    for role in participant.roles:
        _add_code(element, "RoleIDCode", role)


def _add_study(root: ET.Element, part: StudyPart) -> None:
    element = _add_object(root, part.study_instance_uid, _STUDY_UID, ("2", "3"))
    if part.instances:
        described = ET.SubElement(element, "ParticipantObjectDescription")
        for sop_class_uid, count in sorted(part.instances.items()):
            ET.SubElement(described, "SOPClass", UID=_token(sop_class_uid), NumberOfInstances=str(count))


def _add_object(root: ET.Element, identifier: str, kind: Code, type_and_role: tuple[str, str]) -> ET.Element:
    attributes = {
        "ParticipantObjectID": _token(identifier),
        "ParticipantObjectTypeCode": type_and_role[0],
        "ParticipantObjectTypeCodeRole": type_and_role[1],
    }
    element = ET.SubElement(root, "ParticipantObjectIdentification", attributes)
    _add_code(element, "ParticipantObjectIDTypeCode", kind)
    # The schema wants a name; the node keeps none of a person.
    ET.SubElement(element, "ParticipantObjectName").text = _token(identifier)
    return element


def _add_code(parent: ET.Element, name: str, code: Code) -> None:
    attributes = {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning}
    ET.SubElement(parent, name, attributes)


def _token(text: str) -> str:
    """The text as XML can hold it, on one line of moderate length (a path may come from anybody)."""
    return " ".join(_NOT_XML.sub("\ufffd", text[:_LONGEST_TEXT]).split())
