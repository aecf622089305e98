"""HTTP to Google: one request, sent once, over in time.

Owns the connection under google-api-python-client. ``httplib2`` by itself sends a request again when
an idle connection had gone stale or the server hung up, a POST too; bounds each read but not their
sum; and keeps a connection after a time-out, so that the next request would read the last one's answer.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
from typing import Any

import httplib2
from urllib3.util import wait_for_read

MOST_BYTES = 50_000_000
_CHUNK = 65_536


class OneTryHttp(httplib2.Http):  # type: ignore[misc]  # httplib2 has no types
    """An ``httplib2.Http`` without its second tries. Not thread-safe: one per thread.

    ``sent`` tells, after a failure, whether anything of the request may have reached the server.
    """

    def __init__(self) -> None:
        super().__init__()
        self.follow_redirects = False
        self.sent = False
        self._ends = 0.0

    def begin(self, seconds: float) -> None:
        """Give the next request ``seconds`` from now, all told."""
        self._ends = time.monotonic() + seconds
        self.sent = False

    def _conn_request(
        self, conn: Any, request_uri: str, method: str, body: Any, headers: Any
    ) -> tuple[httplib2.Response, bytes]:
        try:
            self._connect(conn)
            self.sent = True
            conn.request(method, request_uri, body, headers)
            raw = conn.getresponse()
            content = self._read(conn, raw)
        except BaseException:
            conn.close()
            raise
        response = httplib2.Response(raw)
        return response, httplib2._decompressContent(response, content, self.limit_kwargs)

    def _connect(self, conn: Any) -> None:
        """A connection that can be used: the old one if nothing happened to it, else a new one."""
        conn.timeout = self._left()
        if conn.sock is not None and wait_for_read(conn.sock, timeout=0):
            conn.close()  # an idle connection that is readable was closed by the other side
        if conn.sock is None:
            conn.connect()
        conn.sock.settimeout(self._left())

    def _read(self, conn: Any, raw: http.client.HTTPResponse) -> bytes:
        content = bytearray()
        while chunk := raw.read1(_CHUNK):
            content += chunk
            if len(content) > MOST_BYTES:
                raise http.client.HTTPException("the answer is too long")
            if conn.sock is not None:
                conn.sock.settimeout(self._left())
            else:
                self._left()
        if raw.length:
            raise http.client.IncompleteRead(b"", raw.length)
        raw.close()  # read1 leaves it open at its end, and the connection would refuse the next request
        return bytes(content)

    def _left(self) -> float:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class ThreadHttp(threading.local):
    """Each thread's own connections; a forked child does not share its parent's."""

    def __init__(self) -> None:
        self._pid = 0
        self._http: OneTryHttp | None = None

    def get(self) -> OneTryHttp:
        """The calling thread's."""
        if self._http is None or self._pid != os.getpid():
            self._http, self._pid = OneTryHttp(), os.getpid()
        return self._http
