"""Webhooks that gunicorn's loop serves by itself: what a sender may do with its connection, and what it is told."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest
import requests
from sqlalchemy import text

from tests.e2e.house import House
from tests.eventually import eventually
from tests.people import open_business

Address = tuple[str, int]


@pytest.fixture
def house(tmp_path, world, request) -> Iterator[House]:
    """With one web process, of one thread unless a test asks for more."""
    house = House(tmp_path, world, redis=False)
    house.environment |= {"WEB_CONCURRENCY": "1", "WEB_THREADS": str(getattr(request, "param", 1))}
    yield house
    house.close()


class Sender:
    """Vapi, byte for byte."""

    def __init__(self, house: House, business) -> None:
        self.house = house
        self._path = f"/webhooks/vapi/{business.vapi_token}"
        self._secret = business.vapi_secret
        where = urlsplit(house.base_url)
        self.address: Address = (str(where.hostname), int(where.port or 0))

    def request(self, name: str, *, padding: int = 0, **headers: str) -> bytes:
        message = {"type": "status-update", "status": name, "call": {"id": "c1"}, "x": "y" * padding}
        body = json.dumps({"message": message}).encode()
        said = {"Host": "desk.example", "X-Vapi-Secret": self._secret, "Content-Type": "application/json", **headers}
        lines = [f"{key.replace('_', '-')}: {value}" for key, value in said.items()]
        head = [f"POST {self._path} HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(head).encode() + body

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=10)

    def stored(self) -> list[str]:
        rows = self.house.query("SELECT event_key FROM webhook_delivery_log WHERE provider = 'vapi' ORDER BY id")
        return [key.rpartition(":")[2] for (key,) in rows]


def read_answers(connection: socket.socket, count: int = 1) -> list[bytes]:
    """So many answers with the body ``{}``, each whole."""
    read = b""
    while read.count(b"\r\n\r\n{}") < count:
        more = connection.recv(65536)
        assert more, read
        read += more
    answers = read.split(b"\r\n\r\n{}")
    assert answers.pop() == b""
    return answers


def read_one(connection: socket.socket) -> bytes:
    """The next answer, by the length that it says."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += connection.recv(1)
    headers = dict(line.lower().split(b": ", 1) for line in read.split(b"\r\n")[1:-2])
    left = int(headers[b"content-length"])
    while left:
        more = connection.recv(left)
        assert more
        left -= len(more)
    return read


def status(answer: bytes) -> int:
    return int(answer.split()[1])


@pytest.fixture
def vapi(house, world) -> Sender:
    """One organization's Vapi in front of a server with one thread, which knows it already."""
    business = open_business(house.platform, world, "Salon", "+4930111110001")
    house.start_web()
    sender = Sender(house, business)
    known(sender)
    return sender


def known(sender: Sender) -> None:
    """Send one that the framework answers, which looks up whose it is for the next seconds."""
    with closing(sender.connect()) as connection:
        connection.sendall(sender.request("known", Connection="close"))
        assert status(connection.recv(65536)) == 200


def test_a_webhook_is_answered_while_every_thread_waits_for_somebody_else(vapi):
    with closing(vapi.connect()) as slow, closing(vapi.connect()) as quick:
        slow.sendall(b"POST /api/v1/events HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n")
        time.sleep(0.3)
        known_at = time.monotonic()
        quick.sendall(vapi.request("quick"))
        assert [status(one) for one in read_answers(quick)] == [200]
        assert time.monotonic() - known_at < 2
    assert vapi.stored() == ["known", "quick"]


def test_both_ways_of_serving_say_the_same(vapi):
    with closing(vapi.connect()) as connection:
        connection.sendall(vapi.request("in-the-loop"))
        (loop,) = read_answers(connection)
        connection.sendall(vapi.request("by-a-thread", padding=100_000))
        (thread,) = read_answers(connection)
    assert varying_masked(loop) == varying_masked(thread)


def varying_masked(answer: bytes) -> list[bytes]:
    lines = answer.split(b"\r\n")
    return [line.partition(b":")[0] if line.startswith((b"Date:", b"X-Request-Id:")) else line for line in lines]


def test_requests_sent_before_the_first_was_answered_are_all_answered_in_their_order(vapi):
    names = ["first", "second", "third"]
    with closing(vapi.connect()) as connection:
        connection.sendall(b"".join(vapi.request(name, X_Request_Id=f"request-{name}") for name in names))
        answers = read_answers(connection, 3)
        assert [f"request-{name}".encode() in answer for name, answer in zip(names, answers, strict=True)] == [True] * 3
        for name in names:
            connection.sendall(vapi.request(f"later-{name}", X_Request_Id=f"request-{name}"))
            time.sleep(0.002)
        answers = read_answers(connection, 3)
        assert [f"request-{name}".encode() in answer for name, answer in zip(names, answers, strict=True)] == [True] * 3
    assert vapi.stored() == ["known", *names, *(f"later-{name}" for name in names)]


@pytest.mark.parametrize("pieces", [2, 7])
def test_a_request_that_comes_in_pieces_is_put_together(vapi, pieces):
    with closing(vapi.connect()) as connection:
        for name in ("one", "two"):
            data = vapi.request(name)
            size = len(data) // pieces + 1
            for at in range(0, len(data), size):
                connection.sendall(data[at : at + size])
                time.sleep(0.02)
            assert [status(one) for one in read_answers(connection)] == [200]
    assert vapi.stored() == ["known", "one", "two"]


def test_who_hangs_up_before_the_answer_has_been_heard_and_harms_nobody(vapi):
    for number in range(5):
        connection = vapi.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(vapi.request(f"gone-{number}"))
        connection.close()
    eventually(lambda: len(vapi.stored()) == 6, seconds=10)
    with closing(vapi.connect()) as connection:
        connection.sendall(vapi.request("here"))
        assert [status(one) for one in read_answers(connection)] == [200]
    assert "Traceback" not in vapi.house.log("web")


def test_a_kept_connection_serves_what_the_loop_does_and_what_it_does_not_in_turn(vapi):
    with closing(vapi.connect()) as connection:
        for number in range(3):
            connection.sendall(vapi.request(f"loop-{number}"))
            assert [status(one) for one in read_answers(connection)] == [200]
            connection.sendall(vapi.request("loop", X_Vapi_Secret="wrong"))
            assert status(read_one(connection)) == 403
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
            assert status(read_one(connection)) == 200


@pytest.mark.parametrize("house", [4], indirect=True)
def test_who_is_being_answered_when_the_server_is_told_to_stop_hears_the_end_of_it(vapi):
    lane = "SELECT FROM lanes WHERE lane_key = 'call:c1' FOR UPDATE"
    with (
        closing(vapi.connect()) as waits,
        closing(vapi.connect()) as silent,
        closing(vapi.connect()) as half,
        vapi.house.platform.database.transaction(system=True) as session,
    ):
        session.execute(text(lane))
        waits.sendall(vapi.request("held-up"))
        data = vapi.request("in-two-halves")
        half.sendall(data[:200])
        time.sleep(0.1)
        vapi.house.tell_to_stop("web")
        time.sleep(0.5)
        session.rollback()
        assert [status(one) for one in read_answers(waits)] == [200]
        half.sendall(data[200:])
        assert [status(one) for one in read_answers(half)] == [200]
        silent.sendall(vapi.request("late"))
        assert [status(one) for one in read_answers(silent)] == [200]
    assert sorted(vapi.stored()) == ["held-up", "in-two-halves", "known", "late"]


def test_a_client_of_the_usual_kind_is_served_on_its_kept_connection(vapi):
    url = vapi.house.base_url + vapi._path
    headers = {"X-Vapi-Secret": vapi._secret}
    with requests.Session() as session:
        for number in range(20):
            message = {"type": "status-update", "status": f"s{number}", "call": {"id": "c1"}}
            assert session.post(url, json={"message": message}, headers=headers, timeout=10).status_code == 200
    assert len(vapi.stored()) == 21
