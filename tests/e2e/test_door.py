"""The providers' door as gunicorn serves it, where a test client of the framework's own would not notice."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest
import requests

from tests.e2e.house import House
from tests.people import open_business


@pytest.fixture
def house(tmp_path, world) -> Iterator[House]:
    house = House(tmp_path, world, redis=False)
    yield house
    house.close()


@pytest.fixture
def vapi(house, world) -> tuple[str, dict[str, str]]:
    """The URL of one organization's Vapi webhook on a real server, and the headers that prove the sender."""
    business = open_business(house.platform, world, "Salon", "+4930111110001")
    house.start_web()
    headers = {"X-Vapi-Secret": business.vapi_secret, "Content-Type": "application/json"}
    return f"{house.base_url}/webhooks/vapi/{business.vapi_token}", headers


def send_raw(url: str, headers: dict[str, str], rest: str) -> int:
    """Send what no library would, and end there; the status of the answer."""
    where = urlsplit(url)
    lines = [
        f"POST {where.path} HTTP/1.1",
        "Host: desk.example",
        *(f"{name}: {said}" for name, said in headers.items()),
    ]
    with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, rest]).encode())
        connection.shutdown(socket.SHUT_WR)
        return int(connection.recv(1000).split()[1])


def test_a_body_that_does_not_arrive_whole_is_a_bad_request_and_no_error_of_ours(vapi, house):
    url, headers = vapi
    assert send_raw(url, headers, 'Content-Length: 500\r\n\r\n{"message": {') == 400
    assert send_raw(url, headers, "Transfer-Encoding: chunked\r\n\r\nnot-a-length\r\n") == 400
    assert send_raw(url, headers, 'Transfer-Encoding: chunked\r\n\r\nff\r\n{"message"') == 400
    assert "request.failed" not in house.log("web")
    assert house.query("SELECT count(*) FROM webhook_delivery_log WHERE provider = 'vapi'") == [(0,)]


def test_what_is_no_request_at_all_is_logged_without_its_words_and_without_an_address(vapi, house):
    url, headers = vapi
    assert send_raw(url, headers, "X-Vapi-Secret my-secret-words\r\n\r\n") == 400
    assert send_raw(url, headers, "Transfer-Encoding: my-secret-words\r\n\r\n") == 501
    assert send_raw(url, headers, "Content-Length : 5\r\n\r\n") == 400
    lines = [json.loads(line) for line in house.log("web").splitlines() if "Invalid request" in line]
    assert [line["event"] for line in lines] == [
        "Invalid request: Invalid HTTP Header",
        "Invalid request: Unsupported transfer coding",
        "Invalid request: Invalid HTTP header name",
    ]
    assert "my-secret-words" not in house.log("web")


def test_too_much_is_413_whether_its_length_is_said_or_it_comes_in_chunks(vapi):
    url, headers = vapi
    chunks = (b" " * 100_000 for _ in range(60))
    for body in (b" " * 6_000_000, chunks):
        answer = requests.post(url, data=body, headers=headers, timeout=20)
        assert answer.status_code == 413
        assert answer.headers["Content-Type"] == "application/problem+json"
    body = b'{"message": {"type": "hang", "call": {"id": "c"}, "x": "' + b"y" * 4_000_000 + b'"}}'
    assert requests.post(url, data=body, headers=headers, timeout=20).status_code == 200
    assert requests.post(url, data=iter([body[:9], body[9:]]), headers=headers, timeout=20).status_code == 200


def test_who_is_refused_early_reads_the_answer_and_no_reset_however_much_was_still_to_be_sent(vapi):
    url, headers = vapi
    where = urlsplit(url)
    for sent, status in (({}, 413), ({"Content-Type": "text/plain"}, 415)):
        told = {"Host": "desk.example", "Content-Length": "8000000", "Connection": "close", **headers, **sent}
        lines = [f"POST {where.path} HTTP/1.1", *(f"{name}: {said}" for name, said in told.items()), "", ""]
        with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
            connection.sendall("\r\n".join(lines).encode())
            for _ in range(80):
                time.sleep(0.005)  # as a proxy passes on what it has taken; a closed end would be met here
                connection.sendall(b" " * 100_000)
            assert int(connection.recv(1000).split()[1]) == status


def test_an_answer_that_refuses_names_what_is_wrong_and_repeats_nothing_that_was_sent(vapi):
    url, headers = vapi
    answer = requests.post(url, data=b"{}", headers={**headers, "X-Vapi-Secret": "a-wrong-secret"}, timeout=20)
    assert answer.status_code == 403
    assert answer.json()["code"] == "signature_invalid"
    assert "a-wrong-secret" not in answer.text


def test_connections_that_are_never_silent_keep_no_thread_from_those_that_wait(house):
    """A thread stays with its connection while requests come one after the other, but not when another needs it."""
    house.environment |= {"WEB_CONCURRENCY": "1", "WEB_THREADS": "2"}
    house.start_web()
    answered, ends = [0, 0, 0], time.monotonic() + 3

    def never_silent(number: int) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", house.port, timeout=10)) as connection:
            while time.monotonic() < ends:
                connection.request("GET", "/health")
                answer = connection.getresponse()
                answer.read()
                answered[number] += answer.status == 200

    threads = [threading.Thread(target=never_silent, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    waited = []
    while time.monotonic() < ends - 0.5:
        began = time.monotonic()
        assert requests.get(f"{house.base_url}/health", timeout=10).status_code == 200
        waited.append(time.monotonic() - began)
    for thread in threads:
        thread.join()
    assert min(answered) > 50
    assert max(waited) < 1
