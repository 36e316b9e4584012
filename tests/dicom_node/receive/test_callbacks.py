"""Reports on storage commitment that go to a peer on an association of the node's own."""

from __future__ import annotations

import gc

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from dicom_node.back_off import BackOff
from dicom_node.connection import Called
from dicom_node.receive.callbacks import Callbacks
from dicom_node.receive.commitment import NO_SUCH_INSTANCE, Answer, Reference

CT = "1.2.840.10008.5.1.4.1.1.2"
ANSWER = Answer("1.2.9", (Reference(CT, "1.2.3"),), {Reference(CT, "1.2.4"): NO_SUCH_INSTANCE})


@pytest.fixture
def callbacks(bench):
    peers = {"PACS": Called("PACS", "127.0.0.1", bench.free_port())}
    found = Callbacks(peers, ae_title="MARGINWATCH", back_off=BackOff(0.1, 0.2))
    found.start()
    yield found
    found.stop()


@pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)  # pynetdicom's socket
def test_a_peer_that_is_away_or_has_no_time_is_told_later(bench, callbacks):
    """It is away, then refuses the report once, then takes it."""
    statuses, reports = [0x0110, 0x0000], []

    def on_report(event):
        information = event.event_information
        reports.append((event.assoc.requestor.ae_title, event.event_type, information))
        return statuses[len(reports) - 1], None

    assert callbacks.takes("PACS", ANSWER)
    bench.wait_until(lambda: callbacks._delays and callbacks._delays["PACS"].wait_s > 0)
    ae = AE(ae_title="PACS")
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    port = callbacks._peers["PACS"].port
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)])
    try:
        bench.wait_until(lambda: callbacks._waiting == [])
    finally:
        server.shutdown()
    assert len(reports) == 2
    title, event_type, information = reports[1]
    assert (title, event_type, information.TransactionUID) == ("MARGINWATCH", 2, "1.2.9")
    assert [item.ReferencedSOPInstanceUID for item in information.ReferencedSOPSequence] == ["1.2.3"]
    (failed,) = information.FailedSOPSequence
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == ("1.2.4", 0x0112)
    gc.collect()


def test_who_is_not_known_is_answered_where_it_asked(callbacks):
    assert not callbacks.takes("STRANGER", ANSWER)
