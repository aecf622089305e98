"""The body of a request as it came: the whole of it or none. Owns how much of it is read."""

from __future__ import annotations

from flask import request
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge


def read_body(most: int) -> bytes:
    """All bytes; raises RequestEntityTooLarge (413) and BadRequest (400) for what was cut off on its way."""
    if (request.content_length or 0) > most:
        raise RequestEntityTooLarge
    request.max_content_length = most
    try:
        body = request.get_data(cache=False)
    except HTTPException:
        raise
    except Exception:  # noqa: BLE001 - a connection that broke, chunks that are none: each server has its own
        raise BadRequest("the body did not arrive whole") from None
    if request.content_length is None and len(body) >= most:
        raise RequestEntityTooLarge  # sent in chunks: werkzeug cuts it at the cap without a word
    if request.content_length is not None and len(body) != request.content_length:
        raise BadRequest("the body did not arrive whole")
    return body
