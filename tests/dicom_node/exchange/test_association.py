"""PACSs that break off, trickle or drop out between two questions: no answer, and never a fault of ours."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find

from dicom_node.connection import Called
from dicom_node.exchange.answers import NoAnswer
from dicom_node.exchange.association import associated
from dicom_node.exchange.find import Query, querying


class Archive:
    """Answers each C-FIND with one study, and then what `then` does."""

    def __init__(self, port: int) -> None:
        self.called = Called("ARCHIVE", "127.0.0.1", port)
        self.trickles = threading.Event()
        self.over = threading.Event()
        ae = AE(ae_title="ARCHIVE")
        ae.add_supported_context(Find)
        self.server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_FIND, self._on_find)])

    def _on_find(self, _: Any) -> Iterator[tuple[int, Dataset | None]]:
        found = Dataset()
        found.QueryRetrieveLevel, found.StudyInstanceUID = "STUDY", "1.2.3"
        yield 0xFF00, found
        while self.trickles.is_set() and not self.over.wait(0.1):
            yield 0xFF00, found
        yield 0x0000, None


@pytest.fixture
def archive(bench) -> Iterator[Archive]:
    archive = Archive(bench.free_port())
    yield archive
    archive.over.set()
    archive.server.shutdown()


def test_a_pacs_that_leaves_between_two_questions_gives_no_answer(archive, bench):
    with querying(archive.called, "NODE") as query:
        assert len(query.studies(patient_id="P1")) == 1
        archive.server.active_associations[0].abort()
        bench.wait_until(lambda: not query.association.is_established)
        with pytest.raises(NoAnswer, match="left the association"):
            query.studies(patient_id="P1")


def test_a_pacs_that_trickles_is_left_after_a_time(archive):
    archive.trickles.set()
    began = time.monotonic()
    with (
        pytest.raises(NoAnswer, match="broke the association off"),
        associated(archive.called, "NODE", [build_context(Find)], within_s=1.0) as association,
    ):
        Query(association).studies(patient_id="P1")
    assert time.monotonic() - began < 10


# pynetdicom leaves the socket of a failed connection to the garbage collector
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("called", [Called("A" * 20, "127.0.0.1", 104), Called("PACS", "pacs..local", 104)])
def test_an_address_that_is_none_gives_no_answer(called):
    with pytest.raises(NoAnswer), associated(called, "NODE", [build_context(Find)]):
        raise AssertionError("there is no such PACS")
    gc.collect()


def test_a_bug_in_the_block_stays_a_bug(archive):
    with pytest.raises(ValueError, match="ours"), querying(archive.called, "NODE"):
        raise ValueError("ours")
