"""Reading a request that is here whole: what is plain is read as gunicorn reads it, and the rest is left to it."""

from __future__ import annotations

import random

import pytest
from gunicorn.config import Config
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from app.http.whole_requests import MOST_HEAD_BYTES, WholeRequest, read_whole

BODY = b'{"message": {"type": "hang", "call": {"id": "c1"}}}'
PLAIN = (
    b"POST /webhooks/vapi/token?a=%20b HTTP/1.1\r\nHost: desk.example\r\nContent-Type: application/json\r\n"
    b"X-Vapi-Secret:  spaced out \r\nContent-Length: " + str(len(BODY)).encode() + b"\r\n\r\n" + BODY
)


def with_header(line: bytes) -> bytes:
    return PLAIN.replace(b"Host: desk.example\r\n", b"Host: desk.example\r\n" + line + b"\r\n")


def test_a_plain_post_is_read_with_its_target_as_it_came_and_its_headers_in_lower_case():
    request = read_whole(PLAIN)
    assert request == WholeRequest(
        target="/webhooks/vapi/token?a=%20b",
        headers={
            "host": "desk.example",
            "content-type": "application/json",
            "x-vapi-secret": "spaced out",
            "content-length": str(len(BODY)),
        },
        body=BODY,
    )
    assert request.path == "/webhooks/vapi/token"


def test_a_post_without_a_body_is_whole_when_it_says_so():
    assert read_whole(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").body == b""
    assert read_whole(b"POST /a HTTP/1.1\r\nHost: h\r\n\r\n") is None


def test_what_is_not_all_here_yet_is_left():
    for end in range(len(PLAIN)):
        assert read_whole(PLAIN[:end]) is None, end


LEFT = {
    "two requests": PLAIN + PLAIN,
    "a byte too many": PLAIN + b"\n",
    "another method": PLAIN.replace(b"POST", b"PUT"),
    "an older HTTP": PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "no host": PLAIN.replace(b"Host", b"Guest"),
    "an absolute target": PLAIN.replace(b"/webhooks", b"http://desk.example/webhooks"),
    "a fragment": PLAIN.replace(b"?a", b"#a"),
    "a header twice": with_header(b"Host: desk.example"),
    "two lengths": with_header(b"Content-Length: 3"),
    "a length that is none": PLAIN.replace(b"Content-Length: ", b"Content-Length: +"),
    "a length with zeros": PLAIN.replace(b"Content-Length: ", b"Content-Length: 00"),
    "chunks": with_header(b"Transfer-Encoding: chunked"),
    "a length and another coding": with_header(b"Transfer-Encoding: identity"),
    "an expectation": with_header(b"Expect: 100-continue"),
    "an upgrade": with_header(b"Upgrade: h2c"),
    "the end of the connection": with_header(b"Connection: close"),
    "a compressed body": with_header(b"Content-Encoding: gzip"),
    "a name with an underscore": with_header(b"X_Vapi_Secret: other"),
    "a folded line": with_header(b"X-Long: one\r\n two"),
    "a space before the colon": with_header(b"X-Odd : one"),
    "a bare line feed": PLAIN.replace(b"\r\n", b"\n"),
    "a head too large": with_header(b"X-Long: " + b"a" * MOST_HEAD_BYTES),
    "too many headers": with_header(b"\r\n".join(b"X-%d: a" % number for number in range(70))),
    "a PROXY line": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + PLAIN,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("data", LEFT.values(), ids=LEFT)
def test_what_is_not_plain_is_left_to_the_server(data):
    assert read_whole(data) is None


def test_a_connection_that_is_to_be_kept_may_say_so():
    assert read_whole(with_header(b"Connection: keep-alive")) is not None


def as_gunicorn_reads(data: bytes) -> tuple[str, str, dict[str, str], bytes, bytes]:
    """Method, target, headers, body and what is left, by gunicorn's own parser."""
    unreader = IterUnreader(iter([data]))
    request = Request(Config(), unreader, ("127.0.0.1", 1), 1)
    body = request.body.read()
    headers = {name.lower(): value for name, value in request.headers}
    assert len(headers) == len(request.headers), "a header twice"
    return request.method, request.uri, headers, body, unreader.take_buffered() + b"".join(iter(unreader.chunk, b""))


PIECES = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b"\x0b", b"\xa0", b"\xff", b"?", b"#", b"%", b"_", b"0", b"+"),
    *(
        b"POST ",
        b"GET ",
        b" HTTP/1.1",
        b"HTTP/1.0",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"5\r\n",
    ),
    *(
        b"Host: a\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"\r\n\r\n",
        b"content_length: 3\r\n",
        b"//",
    ),
]


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_read_is_read_as_gunicorn_would(seed):
    chance = random.Random(seed)
    read = 0
    for _ in range(1500):
        data = bytearray(PLAIN)
        for _ in range(chance.randint(0, 2)):
            at = chance.randrange(len(data))
            data[at : at + chance.choice((0, 0, 1, 3))] = chance.choice([*PIECES, bytes([chance.randrange(256)])])
        request = read_whole(bytes(data))
        if request is not None:
            read += 1
            expected = ("POST", request.target, request.headers, request.body, b"")
            assert as_gunicorn_reads(bytes(data)) == expected, bytes(data)
    assert read > 100, "and many are read"
