"""A PACS as it is configured: asked and fetched from by DIMSE or DICOMweb alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Protocol

from dicom_node.connection import Called
from dicom_node.exchange.answers import FETCH_WITHIN_S, NoAnswer, RemoteInstance, RemoteSeries, RemoteStudy, Wanted
from dicom_node.exchange.find import querying
from dicom_node.exchange.retrieve import c_get, c_move
from dicom_node.exchange.web import WebQuery, fetch, web_client
from dicom_node.identity import identity_of_file
from dicom_node.peers import Pacs
from dicom_node.records import Identity
from dicom_node.refusal import Refused


class Query(Protocol):
    """What a PACS can be asked; every method raises `NoAnswer`."""

    def studies(self, *, patient_id: str = "", study_instance_uid: str = "", dates: str = "") -> list[RemoteStudy]: ...
    def series(self, study_instance_uid: str) -> list[RemoteSeries]: ...
    def instances(self, study_instance_uid: str, series_instance_uid: str) -> list[RemoteInstance]: ...


class Deposit(Protocol):
    """Takes an instance that was fetched, as it would one that was sent here. Raises `Refused` or OSError where it is
    not stored; then it is fetched again later.
    """

    def __call__(self, content: bytes, *, received_from: str) -> Identity:
        """Whose it is. content: a DICOM file; received_from: the AE title of the PACS."""


@contextmanager
def asking(pacs: Pacs, calling_ae_title: str) -> Iterator[Query]:
    """The PACS, to be asked for as long as the block lasts. Raises `NoAnswer`."""
    if pacs.retrieve == "dicomweb":
        with web_client(pacs.dicomweb_url, pacs.token_file) as client:
            yield WebQuery(client)
    else:
        with querying(_called(pacs), calling_ae_title) as query:
            yield query


def bring(pacs: Pacs, calling_ae_title: str, wanted: Wanted, deposit: Deposit) -> None:
    """Fetch what is wanted; by C-MOVE it comes to the node's listener, else to `deposit`.

    Raises `NoAnswer` where the PACS did not send everything, or sent something else, and what `deposit` raises.
    """
    if pacs.retrieve == "c-move":
        c_move(_called(pacs), calling_ae_title, wanted)
    elif pacs.retrieve == "c-get":
        c_get(_called(pacs), calling_ae_title, wanted, _Checked(wanted, pacs, deposit))
    else:
        with web_client(pacs.dicomweb_url, pacs.token_file, within_s=FETCH_WITHIN_S) as client:
            fetch(client, wanted, _Checked(wanted, pacs, deposit))


class _Checked:
    """Deposits what is of the wanted patient and study, and raises `NoAnswer` for anything else."""

    def __init__(self, wanted: Wanted, pacs: Pacs, deposit: Deposit) -> None:
        self._wanted = wanted
        self._pacs = pacs
        self._deposit = deposit

    def __call__(self, content: bytes) -> None:
        try:
            identity = identity_of_file(BytesIO(content)).identity
        except Refused:
            raise NoAnswer(f"{self._pacs.ae_title} sent an instance that cannot be read") from None
        wanted = self._wanted
        if (identity.study_instance_uid, identity.patient_id) != (wanted.study_instance_uid, wanted.patient_id):
            raise NoAnswer(f"{self._pacs.ae_title} sent an instance of another patient or study than was asked for")
        self._deposit(content, received_from=self._pacs.ae_title)


def _called(pacs: Pacs) -> Called:
    return Called(pacs.ae_title, pacs.host, pacs.port)
