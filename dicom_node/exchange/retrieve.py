"""Images from a PACS: by C-GET over the association that asks, or by C-MOVE to the node's own listener."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from pydicom import Dataset
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from pynetdicom import build_role, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelGet as Get,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelMove as Move,
)

from dicom_node.connection import Called
from dicom_node.exchange.answers import FETCH_WITHIN_S, NoAnswer, Wanted
from dicom_node.exchange.association import associated, speaking
from dicom_node.records import IMAGE_CLASSES

#: One context for each class and syntax: the PACS then sends what it keeps as it keeps it. 7 classes and 12 syntaxes
#: stay below the 128 contexts of an association.
_CLASSES = sorted({*IMAGE_CLASSES, str(SecondaryCaptureImageStorage)})
_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    RLELossless,
)
_AT_ONCE = 200
_OUT_OF_RESOURCES = 0xA700


def c_get(called: Called, calling_ae_title: str, wanted: Wanted, take: Callable[[bytes], None]) -> None:
    """Bring what is wanted by C-GET. take: is handed the file content of each; what it raises ends it all.

    Raises `NoAnswer` where the PACS did not send everything.
    """
    raised: list[Exception] = []

    def on_store(event: Any) -> int:
        if not raised:
            try:
                take(event.encoded_dataset(include_meta=True))
                return 0x0000
            except Exception as problem:  # noqa: BLE001  on pynetdicom's way back it would only be logged
                raised.append(problem)
        return _OUT_OF_RESOURCES

    contexts = [build_context(Get), *(build_context(kind, syntax) for kind in _CLASSES for syntax in _SYNTAXES)]
    roles = [build_role(kind, scp_role=True) for kind in _CLASSES]
    handlers = [(evt.EVT_C_STORE, on_store)]
    problem: NoAnswer | None = None
    with associated(
        called, calling_ae_title, contexts, roles=roles, handlers=handlers, within_s=FETCH_WITHIN_S
    ) as association:
        for identifier in _identifiers(wanted):
            try:
                _finish(partial(association.send_c_get, identifier, Get), "C-GET")
            except NoAnswer as told:
                problem = told
                break
    if raised:
        raise raised[0]
    if problem is not None:
        raise problem


def c_move(called: Called, calling_ae_title: str, wanted: Wanted) -> None:
    """Have what is wanted sent to the listener that is known by our AE title. Raises `NoAnswer` where it was not."""
    with associated(called, calling_ae_title, [build_context(Move)], within_s=FETCH_WITHIN_S) as association:
        for identifier in _identifiers(wanted):
            _finish(partial(association.send_c_move, identifier, calling_ae_title, Move), "C-MOVE")


def _identifiers(wanted: Wanted) -> Iterator[Dataset]:
    uids = wanted.sop_instance_uids
    for start in range(0, max(1, len(uids)), _AT_ONCE):
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "IMAGE" if uids else "SERIES"
        identifier.StudyInstanceUID = wanted.study_instance_uid
        identifier.SeriesInstanceUID = wanted.series_instance_uid
        if uids:
            identifier.SOPInstanceUID = list(uids[start : start + _AT_ONCE])
        yield identifier


def _finish(ask: Callable[[], Iterator[tuple[Dataset, Dataset | None]]], what: str) -> None:
    """Ask, and follow the answers to their end. Raises `NoAnswer` where not everything was sent."""
    with speaking():
        _follow(ask(), what)


def _follow(answers: Iterator[tuple[Dataset, Dataset | None]], what: str) -> None:
    for answer, _ in answers:
        status = answer.get("Status")
        if status is None:
            raise NoAnswer(f"the PACS broke the association off, or did not answer the {what} in time")
        failed = int(answer.get("NumberOfFailedSuboperations") or 0)
        if status in (0xFF00, 0xFF01):
            continue
        if status == 0xA801:
            raise NoAnswer("the PACS does not know this node's AE title as a destination of C-MOVE")
        if status not in (0x0000, 0xB000) or failed:
            told = f"; {failed} instances could not be sent" if failed else ""
            raise NoAnswer(f"the PACS answered {status:#06x} to the {what}{told}")
