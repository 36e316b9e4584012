"""TLS as a server speaks it here: which versions and ciphers, from which files."""

from __future__ import annotations

import ssl
from pathlib import Path

from dicom_node.refusal import Refused
from dicom_node.settings import ReviewSettings, TlsSettings

#: The suites of BCP 195 (RFC 9325) for TLS 1.2, as the BCP 195 profile of PS3.15 annex B asks; TLS 1.3 has its own.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL"


def listener_tls(tls: TlsSettings) -> ssl.SSLContext | None:
    """The DICOM listener's context; None where it speaks without TLS. Raises `Refused` ("bad_tls")."""
    return (
        _server_context("listener.tls: the certificate files", tls.certificate, tls.key, tls.ca) if tls.is_on else None
    )


def review_tls(review: ReviewSettings) -> ssl.SSLContext | None:
    """As `listener_tls`, the review page's."""
    if not review.tls_certificate:
        return None
    keys = "review.tls_certificate and review.tls_key"
    return _server_context(keys, review.tls_certificate, review.tls_key)


def _server_context(keys: str, certificate: str, key: str, ca: str = "") -> ssl.SSLContext:
    """A server's context by the BCP 195 profile. Raises `Refused` ("bad_tls") for files that cannot be used.

    keys: the settings that name the files; ca: who signs the peers' certificates; empty: no peer has to show one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    try:
        for file in filter(None, (certificate, key, ca)):
            Path(file).open("rb").close()  # says which one it is that is not there
        # A key with a passphrase would ask for it on the terminal; the empty one makes it fail.
        context.load_cert_chain(certificate, key, password="")
        if ca:
            context.load_verify_locations(ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as problem:  # SSLError too
        which = f", {problem.filename}" if problem.filename else ""
        text = f"{keys} cannot be used ({problem.strerror or problem}{which}); "
        raise Refused("bad_tls", text + "give a PEM certificate chain and its key without a passphrase.") from None
    return context
