"""The body of a request as it came: the whole of it or none. Owns how much of it is read."""

from __future__ import annotations

import time

from flask import request
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

MOST_DISCARDED_BYTES = 10_000_000  # beyond what the proxy lets through
DISCARD_SECONDS = 5.0
_PIECE = 65_536


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


def discard_body() -> None:
    """Read away what a refused request still sends, within bounds, before the answer goes out.

    A connection that is closed with bytes unread is reset, and then the sender, or the proxy before it, sees an
    error of the network (502) instead of the answer (413).
    """
    environ = request.environ
    if environ.get("wsgi.input_terminated"):  # the server knows the end, as gunicorn does: read or not
        left = MOST_DISCARDED_BYTES
    elif "stream" not in vars(request):  # nobody has read of it
        left = min(request.content_length or 0, MOST_DISCARDED_BYTES)
    else:
        return
    stream = environ["wsgi.input"]
    until = time.monotonic() + DISCARD_SECONDS
    try:
        while left > 0 and time.monotonic() < until:
            piece = stream.read(min(left, _PIECE))
            if not piece:
                return
            left -= len(piece)
    except Exception:  # noqa: BLE001 - a connection that broke has nobody to be told
        return
