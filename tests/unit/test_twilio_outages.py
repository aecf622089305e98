"""Sending texts when Twilio, its answers or the connections break: what may have been done, and in what time."""

from __future__ import annotations

import base64
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest

from app.errors import CircuitOpen, DeadlineExceeded, ProviderUnavailable, RecipientOptedOut
from app.integrations.breaker import TWILIO_SMS, TWILIO_WHATSAPP, circuits
from app.integrations.http_errors import parse_retry_after
from app.integrations.twilio import TwilioCredentials, TwilioMessages
from app.integrations.twilio.client import CLIENTS_PER_THREAD, Clients
from app.redis import RedisLink
from sandbox.standins import RemoteWorld
from tests.twilio_senders import CREDENTIALS, open_account, send_text


@pytest.fixture(autouse=True)
def _own_circuits() -> Iterator[None]:
    circuits.connect(RedisLink(None), open_seconds=30)
    yield
    circuits.close()


@pytest.fixture
def twilio(world: RemoteWorld) -> TwilioMessages:
    """Twilio's stand-in with one account."""
    return open_account(world)


@pytest.mark.parametrize("kind", ["error_500", "error_500_after", "cut_before", "cut_after"])
def test_what_broke_after_it_was_sent_may_have_been_done(twilio: TwilioMessages, world: RemoteWorld, kind: str) -> None:
    world.fault("twilio", kind)
    with pytest.raises(ProviderUnavailable) as failure:
        send_text(twilio)
    assert failure.value.maybe_done
    assert len(world.requests("twilio", "create_message")) == 1


def test_a_refused_connection_and_an_unknown_name_certainly_did_nothing() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for base_url in (nobody, "http://no-such-host.invalid"):
            with pytest.raises(ProviderUnavailable) as failure:
                send_text(TwilioMessages(base_url))
            assert failure.value.maybe_done is False


def test_a_short_deadline_that_ran_out_says_nothing_against_twilio(twilio: TwilioMessages, world: RemoteWorld) -> None:
    world.fault("twilio", "hang", operation="create_message", times=4)
    begun = time.monotonic()
    for _ in range(4):
        with pytest.raises(DeadlineExceeded) as failure:
            send_text(twilio, timeout_seconds=0.2)
        assert failure.value.maybe_done
    assert time.monotonic() - begun < 3
    assert send_text(twilio).status == "queued"


def test_three_failures_stop_sms_and_leave_whatsapp_alone(twilio: TwilioMessages, world: RemoteWorld) -> None:
    world.fault("twilio", "error_500", times=3)
    for _ in range(3):
        with pytest.raises(ProviderUnavailable):
            send_text(twilio)
    with pytest.raises(CircuitOpen) as refusal:
        send_text(twilio)
    assert refusal.value.circuit == TWILIO_SMS
    assert send_text(twilio, channel="whatsapp").status == "queued"
    states = {state.name: state.state for state in circuits.states()}
    assert (states[TWILIO_SMS], states[TWILIO_WHATSAPP]) == ("open", "closed")


@contextmanager
def _server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does to every connection what ``answer`` does; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    try:
                        answer(connection)
                    except OSError:
                        continue  # the client has had enough

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def _saying(text: str) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(text.replace("\n", "\r\n").encode())


@pytest.mark.parametrize(
    "answer",
    [
        "HTTP/1.1 200 OK\nContent-Length: 5\n\n<html",
        "HTTP/1.1 201 Created\nContent-Length: 2\n\n[]",
        "HTTP/1.1 201 Created\nContent-Length: 2\n\n{}",
        'HTTP/1.1 201 Created\nContent-Length: 100\n\n{"sid":',
        "HTTP/1.1 201 Created\nContent-Length: 0\n\n",
        "HTTP/1.1 302 Found\nLocation: http://127.0.0.1:9/\nContent-Length: 0\n\n",
        "HTTP/1.1 503 Busy\nRetry-After: 3\nContent-Length: 4\n\nbusy",
        "this is not HTTP\n\n",
        "",
    ],
    ids=["portal", "list", "no sid", "cut short", "empty", "redirect", "503", "no HTTP", "nothing"],
)
def test_an_answer_that_is_not_twilios_leaves_it_open_whether_it_was_done(answer: str) -> None:
    with _server(_saying(answer)) as url, pytest.raises(ProviderUnavailable) as failure:
        send_text(TwilioMessages(url))
    assert failure.value.maybe_done


def test_a_problem_document_is_sorted_like_the_classic_error() -> None:
    body = '{"type": "https://t/e", "title": "No", "status": 400, "code": 21610}'
    answer = f"HTTP/1.1 400 Bad Request\nContent-Type: application/problem+json\nContent-Length: {len(body)}\n\n{body}"
    with _server(_saying(answer)) as url, pytest.raises(RecipientOptedOut):
        send_text(TwilioMessages(url))


def test_an_answer_that_trickles_in_does_not_outlive_the_time_limit() -> None:
    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            connection.sendall(b" ")
            time.sleep(0.05)

    with _server(trickle) as url:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            send_text(TwilioMessages(url), timeout_seconds=0.4)
        assert time.monotonic() - begun < 2


# --- connections ------------------------------------------------------------------------------


def test_threads_send_side_by_side_with_connections_of_their_own(twilio: TwilioMessages, world: RemoteWorld) -> None:
    with ThreadPoolExecutor(8) as pool:
        sids = {sent.sid for sent in pool.map(lambda n: send_text(twilio, body=f"text {n}"), range(40))}
    assert len(sids) == 40
    assert len(world.messages()) == 40


def test_a_thread_keeps_one_client_for_an_account_and_not_more_than_so_many() -> None:
    clients = Clients("http://127.0.0.1:9")
    accounts = [
        TwilioCredentials(account_sid=f"AC{number:032x}", auth_token="t") for number in range(CLIENTS_PER_THREAD + 1)
    ]
    first = clients.get(accounts[0], timeout_seconds=1)
    assert clients.get(accounts[0], timeout_seconds=2) == first
    assert first[1].timeout == 2
    for account in accounts[1:]:
        clients.get(account, timeout_seconds=1)
    assert clients.get(accounts[0], timeout_seconds=1) != first


def test_accounts_that_a_thread_sends_for_share_its_connection_and_each_asks_in_its_own_name() -> None:
    connections: list[list[str]] = []

    def answer(connection: socket.socket) -> None:  # the first request has been read, and was the first account's
        names = [accounts[0].account_sid]
        connections.append(names)
        body = '{"sid": "SM0", "status": "sent"}'
        while True:
            _saying(f"HTTP/1.1 200 OK\nContent-Length: {len(body)}\n\n{body}")(connection)
            if not (asked := connection.recv(65_536)):
                return
            given = re.search(rb"Authorization: Basic (\S+)", asked)
            assert given
            names.append(base64.b64decode(given[1]).decode().partition(":")[0])

    accounts = [
        TwilioCredentials(account_sid=f"AC{number:032x}", auth_token="t") for number in range(CLIENTS_PER_THREAD + 2)
    ]
    with _server(answer) as url:
        twilio = TwilioMessages(url)
        for account in (*accounts, accounts[0]):  # more than have a client at a time
            assert twilio.fetch(account, "SM0").status == "sent"
    assert connections == [[account.account_sid for account in (*accounts, accounts[0])]]


def test_what_is_left_of_one_accounts_late_answer_is_not_taken_for_anothers() -> None:
    late = '{"sid": "SM1", "status": "sent"}'
    connections: list[socket.socket] = []

    def answer(connection: socket.socket) -> None:
        connections.append(connection)
        if len(connections) > 1:
            _saying(f"HTTP/1.1 200 OK\nContent-Length: {len(late)}\n\n{late.replace('SM1', 'SM2')}")(connection)
            return
        _saying(f"HTTP/1.1 200 OK\nContent-Length: {5 + len(late)}\n\n")(connection)
        for _ in range(5):  # for longer than the first asker waits, and never in one silence
            time.sleep(0.1)
            _saying(" ")(connection)
        _saying(f"{late}HTTP/1.1 200 OK\nContent-Length: {len(late)}\n\n{late}")(connection)

    with _server(answer) as url:
        twilio = TwilioMessages(url)
        with pytest.raises(DeadlineExceeded):
            twilio.fetch(CREDENTIALS, "SM1", timeout_seconds=0.2)
        another = TwilioCredentials(account_sid="AC" + "7f" * 16, auth_token="t")
        assert twilio.fetch(another, "SM2").sid == "SM2"
    assert len(connections) == 2


def test_a_forked_child_does_not_share_its_parents_connections(twilio: TwilioMessages) -> None:
    sent = send_text(twilio)
    _, wire = twilio._clients.get(CREDENTIALS, timeout_seconds=10)
    child = os.fork()
    if not child:
        try:
            found = twilio.fetch(CREDENTIALS, sent.sid)
            _, own_wire = twilio._clients.get(CREDENTIALS, timeout_seconds=10)
            os._exit(0 if found.sid == sent.sid and own_wire is not wire else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert twilio._clients.get(CREDENTIALS, timeout_seconds=10)[1] is wire


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("0", 0), ("999999999", 3600), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", None), ("", None)],
)
def test_retry_after_is_seconds_or_a_date_and_never_more_than_an_hour(value: str, seconds: int | None) -> None:
    assert parse_retry_after(value) == (None if seconds is None else timedelta(seconds=seconds))
