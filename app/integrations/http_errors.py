"""How an HTTP call over ``requests`` may end: bounded in time, and its failures sorted.

Owns the difference between "certainly nothing happened" and "somebody must look". Knows no provider
and reads no provider's body.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Timeout
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError

from app.errors import DeadlineExceeded, ProviderUnavailable, TemporaryFailure

LONGEST_RETRY_AFTER = timedelta(hours=1)
CHUNK_BYTES = 65_536


class BoundedAdapter(HTTPAdapter):
    """Reads the whole body within the request's time limit (and at most one wait on the socket longer).

    The limit of ``requests`` is one for each wait on the socket: an answer that trickles in outlives
    it for ever. Raises requests.ReadTimeout when the time is up.
    """

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send as ever; ``timeout`` (seconds, one number) is for connecting, waiting and reading together."""
        seconds = kwargs.get("timeout")
        if not isinstance(seconds, int | float):
            raise TypeError("every request has a time limit, in seconds")
        ends = time.monotonic() + seconds
        limits = {"timeout": Timeout(total=seconds, connect=seconds, read=seconds), "stream": True}
        response = super().send(request, *args, **{**kwargs, **limits})
        response.raw = BytesIO(_read_until(ends, response))
        return response


def _read_until(ends: float, response: requests.Response) -> bytes:
    """The body, taken as it comes; raises as requests does when it breaks off."""
    pieces = []
    try:
        while piece := response.raw.read1(CHUNK_BYTES, decode_content=True):
            pieces.append(piece)
            if time.monotonic() > ends:
                response.close()  # what is left of it must not be read by the connection's next user
                raise requests.ReadTimeout("the answer took too long")
    except ReadTimeoutError as error:
        response.close()
        raise requests.ReadTimeout(error) from None
    except HTTPError as error:
        response.close()
        raise requests.ConnectionError(error) from None
    return b"".join(pieces)


def sort_failure(provider: str, error: requests.RequestException, *, at_full_limit: bool) -> TemporaryFailure:
    """What a failure without an answer means.

    ``at_full_limit``: the call had all the time that it ever gets, so that its running out speaks
    against the provider and not only for a short deadline.
    """
    nothing_sent = _never_connected(error)
    if isinstance(error, requests.Timeout) and not at_full_limit:
        return DeadlineExceeded(f"{provider} did not answer in the time that was left", maybe_done=not nothing_sent)
    if nothing_sent:
        return ProviderUnavailable(f"{provider} cannot be reached", maybe_done=False)
    if isinstance(error, requests.Timeout):
        return ProviderUnavailable(f"{provider} did not answer in time")
    return ProviderUnavailable(f"the connection to {provider} broke off")


def _never_connected(error: requests.RequestException) -> bool:
    """Whether not a byte of the request can have been written: refused, unknown name, timed out connecting."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", None), NewConnectionError)


def parse_retry_after(value: str | None) -> timedelta | None:
    """A Retry-After header, in seconds or as a date (RFC 9110), at most an hour; None when it says nothing."""
    if not value:
        return None
    if value.strip().isdecimal():
        wish = timedelta(seconds=min(int(value), int(LONGEST_RETRY_AFTER.total_seconds())))
    else:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        wish = moment - datetime.now(UTC)
    return min(max(wish, timedelta(0)), LONGEST_RETRY_AFTER)
