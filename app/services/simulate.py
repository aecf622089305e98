"""Traffic that looks like the providers', sent to any server over HTTP.

Owns the sending and what is told of it; never tells a secret. What each provider would send is in
``simulated_vapi.py``, ``simulated_twilio.py`` and ``simulated_google.py``, which make it up anew.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import SplitResult, urlsplit

from app.errors import InvalidInput, TemporaryFailure

TIMEOUT_SECONDS = 30.0
MOST_TIMES = 10_000
MOST_ANSWER_BYTES = 1_000_000
HIDDEN = "[secret]"

_CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One POST, ready and signed. ``secret_headers`` are those that carry a secret itself, not a signature."""

    url: str
    headers: dict[str, str]
    body: bytes
    secret_headers: frozenset[str] = frozenset()


def run(
    make: Callable[[], Outgoing], *, times: int = 1, same: bool = False, tamper: bool = False
) -> list[dict[str, Any]]:
    """Send ``times`` events one after the other, or with ``same`` the same event again and again.

    ``tamper`` alters one byte after signing. Raises InvalidInput for a URL that is none, and
    TemporaryFailure when the server cannot be reached or does not answer within 30 s.
    """
    first = make()
    told = []
    for number in range(times):
        outgoing = first if same or number == 0 else make()
        told.append(send(_tampered(outgoing) if tamper else outgoing))
    return told


def send(outgoing: Outgoing) -> dict[str, Any]:
    """Post it; return ``status``, ``body``, ``duration_ms`` and the ``request`` without its secrets."""
    parts = _address(outgoing.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _CONNECTIONS[parts.scheme](parts.netloc.rpartition("@")[2], timeout=TIMEOUT_SECONDS)
    began = time.monotonic()
    try:
        connection.request("POST", target, body=outgoing.body, headers=outgoing.headers)
        answer = connection.getresponse()
        body = answer.read(MOST_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise TemporaryFailure(f"the server does not answer ({type(error).__name__})", code="no_answer") from None
    except ValueError:
        raise InvalidInput("this cannot be written as an HTTP header or path") from None
    finally:
        connection.close()
    return {
        "status": answer.status,
        "body": body.decode(errors="replace"),
        "duration_ms": round((time.monotonic() - began) * 1000, 1),
        "request": _told(outgoing),
    }


def _address(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _CONNECTIONS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInput("url: http:// or https://, a host and perhaps a port are needed")
    return parts


def _told(outgoing: Outgoing) -> dict[str, Any]:
    headers = {name: HIDDEN if name in outgoing.secret_headers else value for name, value in outgoing.headers.items()}
    return {"method": "POST", "url": outgoing.url, "headers": headers, "body": outgoing.body.decode(errors="replace")}


def _tampered(outgoing: Outgoing) -> Outgoing:
    """One bit of the last letter or digit is flipped, which leaves JSON and forms readable."""
    for place in range(len(outgoing.body) - 1, -1, -1):
        if chr(outgoing.body[place]).isalnum():
            changed = bytes([outgoing.body[place] ^ 1])
            return replace(outgoing, body=outgoing.body[:place] + changed + outgoing.body[place + 1 :])
    raise InvalidInput("there is no body to alter")
