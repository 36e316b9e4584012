"""Passwords as they are kept: salted and made slow to guess by scrypt, the cost written beside each."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import unicodedata

from dicom_node.refusal import Refused

MINIMUM_LENGTH = 10
#: A longer one costs nothing more to keep, but much to hash.
MAXIMUM_LENGTH = 256
#: N, r, p: 32 MiB and some 0.2 s for each try. One of the settings that OWASP's password storage cheat sheet names.
_COST = (2**15, 8, 3)
_SALT_BYTES = 16
_KEY_BYTES = 32


def check_password(password: str) -> None:
    """Raises `Refused` ("bad_password") for one that is too short or too long."""
    if not MINIMUM_LENGTH <= len(password) <= MAXIMUM_LENGTH:
        raise Refused("bad_password", f"A password has {MINIMUM_LENGTH} to {MAXIMUM_LENGTH} characters; take another.")


def hashed(password: str, cost: tuple[int, int, int] = _COST) -> str:
    """What is kept of a password: `scrypt$N$r$p$salt$key`."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return "$".join(["scrypt", *map(str, cost), _text(salt), _text(_key(password, salt, cost))])


def matches(password: str, kept: str) -> bool:
    """Whether `kept` was made from this password. Takes the time of a hash whatever the answer."""
    _, n, r, p, salt, key = kept.split("$")
    return hmac.compare_digest(_key(password, base64.b64decode(salt), (int(n), int(r), int(p))), base64.b64decode(key))


def _key(password: str, salt: bytes, cost: tuple[int, int, int]) -> bytes:
    n, r, p = cost
    # The same letters may come composed or not, as the keyboard has it.
    encoded = unicodedata.normalize("NFC", password[:MAXIMUM_LENGTH]).encode()
    return hashlib.scrypt(encoded, salt=salt, n=n, r=r, p=p, maxmem=2 * 128 * n * r, dklen=_KEY_BYTES)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


#: What a password is held against where there is no such user, so that the answer takes as long. No password fits.
NOBODYS = "$".join(["scrypt", *map(str, _COST), _text(bytes(_SALT_BYTES)), _text(bytes(_KEY_BYTES))])
