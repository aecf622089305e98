"""A request that is here whole, and as plain as a provider's: what it says, or that somebody else must read it.

Owns the decision that it is plain: one POST, one length, no header twice, nothing that changes how it is to be read.
What is not is nobody's fault; the server's own reader takes it, with all the cases a reader has to know. The reading
itself is llhttp's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import httptools

MOST_HEAD_BYTES = 8_000  # below what gunicorn lets pass
MOST_HEADERS = 60
# What changes how a message or its connection is to be read (RFC 9112), or what an intermediary should have taken out.
_NOT_PLAIN = frozenset({"transfer-encoding", "expect", "upgrade", "connection", "te", "trailer", "content-encoding"})

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,9})\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WholeRequest:
    """One POST. ``target`` is path and query as they came, ``headers`` has lower-case names."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


class _Reader:
    """What llhttp tells."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.is_plain = True
        self.target = b""
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        said = value.decode("latin-1").strip(" \t")
        if key in self.headers or "_" in key or (key in _NOT_PLAIN and said.lower() != "keep-alive"):
            self.is_plain = False
        self.headers[key] = said

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.ended += 1


def is_cut(data: bytes, *, most_bytes: int) -> bool:
    """Whether ``data`` is the beginning of a POST of at most so many bytes, the rest of which is to be waited for."""
    head = data.find(b"\r\n\r\n") + 4
    if head == 3:
        return len(data) <= MOST_HEAD_BYTES and b"POST /".startswith(data[:6])
    said = _LENGTH.search(data, 0, head) if data.startswith(b"POST /") else None
    return said is not None and len(data) < head + int(said[1]) <= most_bytes


def read_whole(data: bytes) -> WholeRequest | None:
    """The one plain POST that ``data`` is, from its first byte to its last; None for anything else."""
    head = data.find(b"\r\n\r\n") + 4
    if not data.startswith(b"POST /") or not 4 < head <= MOST_HEAD_BYTES:
        return None
    reader = _Reader()
    parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    body = b"".join(reader.body)
    if (
        (reader.begun, reader.ended) != (1, 1)
        or not reader.is_plain
        or head + len(body) != len(data)  # llhttp passes over what others take for the next request's beginning
        or not data.startswith(b"POST %b HTTP/1.1\r\n" % reader.target)  # and over spaces
        or len(reader.headers) > MOST_HEADERS
        or "host" not in reader.headers
        or reader.headers.get("content-length") != str(len(body))
        or b"#" in reader.target
    ):
        return None
    try:
        return WholeRequest(reader.target.decode("ascii"), reader.headers, body)
    except UnicodeDecodeError:
        return None
