"""What a form on one of our own pages brings."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qs

from fastapi import HTTPException, Request

from dicom_node.review.visitor import form_token

_LONGEST_BYTES = 16384
_MOST_FIELDS = 20


async def read_form(request: Request, secret: str) -> Mapping[str, str]:
    """The fields of a form that is ours. secret: what its token was made from.

    Raises HTTPException 413 or 415 for what is no form of ours, and 403 where the token does not fit.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "a form is expected")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BYTES:
            raise HTTPException(413, "the form is too long")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise HTTPException(400, "the form cannot be read") from None
    form = {name: values[0] for name, values in fields.items()}
    given = form.pop("token", "")
    if not secret or not hmac.compare_digest(given.encode(), form_token(secret).encode()):
        raise HTTPException(403, "the form is out of date; go back, reload the page and try again")
    return form
