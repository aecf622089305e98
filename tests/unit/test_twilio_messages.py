"""Sending texts, through Twilio's own library, to its stand-in and to servers that misbehave."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from app.errors import (
    CircuitOpen,
    CredentialsRefused,
    DeadlineExceeded,
    InvalidInput,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
    RecipientOptedOut,
    ResourceGone,
)
from app.integrations.breaker import TWILIO_SMS, TWILIO_WHATSAPP, circuits
from app.integrations.http_errors import parse_retry_after
from app.integrations.twilio import SentMessage, TwilioCredentials, TwilioMessages
from app.integrations.twilio.client import CLIENTS_PER_THREAD, Clients
from app.redis import RedisLink
from sandbox.standins import RemoteWorld

ACCOUNT = "AC" + "3c" * 16
TOKEN = "a token of the tests"
NUMBER, WHATSAPP_NUMBER, CUSTOMER = "+12025550188", "+12025550189", "+12025550143"
SERVICE = "MG" + "4d" * 16
KEY_SID, KEY_SECRET = "SK" + "6e" * 16, "a key of the tests"
CREDENTIALS = TwilioCredentials(
    account_sid=ACCOUNT, auth_token=TOKEN, from_number=NUMBER, whatsapp_from=WHATSAPP_NUMBER
)


@pytest.fixture(autouse=True)
def _own_circuits() -> Iterator[None]:
    circuits.connect(RedisLink(None), open_seconds=30)
    yield
    circuits.close()


@pytest.fixture
def twilio(world: RemoteWorld) -> TwilioMessages:
    """Twilio's stand-in with one account."""
    world.twilio_account(
        ACCOUNT,
        TOKEN,
        [NUMBER, f"whatsapp:{WHATSAPP_NUMBER}"],
        messaging_services={SERVICE: [NUMBER]},
        api_keys={KEY_SID: KEY_SECRET},
    )
    return TwilioMessages(world.twilio_url)


def _send(twilio: TwilioMessages, *, credentials: TwilioCredentials = CREDENTIALS, **changes: object) -> SentMessage:
    given = {"channel": "sms", "to": CUSTOMER, "body": "See you at ten.", "status_callback": None, **changes}
    return twilio.send(credentials, **given)  # type: ignore[arg-type]


def _with(**changes: object) -> TwilioCredentials:
    return CREDENTIALS.model_copy(update=changes)


# --- what goes well ---------------------------------------------------------------------------


def test_an_sms_is_sent_once_with_its_callback_and_its_sid_comes_back(
    twilio: TwilioMessages, world: RemoteWorld
) -> None:
    callback = "http://127.0.0.1:9/status?m=1"
    sent = _send(twilio, status_callback=callback)
    (request,) = world.requests("twilio", "create_message")
    assert request["body"] == {
        "To": CUSTOMER,
        "From": NUMBER,
        "Body": "See you at ten.",
        "StatusCallback": callback,
    }
    assert sent.sid.startswith("SM")
    assert (sent.status, sent.to, sent.sender, sent.body) == ("queued", CUSTOMER, NUMBER, "See you at ten.")
    assert sent.created_at is not None
    assert abs(datetime.now(UTC) - sent.created_at) < timedelta(seconds=5)


@pytest.mark.parametrize("to", [CUSTOMER, f"whatsapp:{CUSTOMER}"])
def test_a_whatsapp_message_goes_from_its_own_number_and_comes_back_without_prefixes(
    twilio: TwilioMessages, world: RemoteWorld, to: str
) -> None:
    sent = _send(twilio, channel="whatsapp", to=to)
    (request,) = world.requests("twilio", "create_message")
    assert (request["body"]["To"], request["body"]["From"]) == (f"whatsapp:{CUSTOMER}", f"whatsapp:{WHATSAPP_NUMBER}")
    assert (sent.to, sent.sender) == (CUSTOMER, WHATSAPP_NUMBER)


def test_a_messaging_service_chooses_the_sender_later(twilio: TwilioMessages) -> None:
    sent = _send(twilio, credentials=_with(messaging_service_sid=SERVICE))
    assert (sent.status, sent.sender) == ("accepted", None)


def test_an_api_key_is_used_when_there_is_one(twilio: TwilioMessages) -> None:
    key = TwilioCredentials(
        account_sid=ACCOUNT, auth_token="wrong", from_number=NUMBER, api_key_sid=KEY_SID, api_key_secret=KEY_SECRET
    )
    assert _send(twilio, credentials=key).status == "queued"


def test_without_a_sender_nothing_is_asked_of_twilio(twilio: TwilioMessages, world: RemoteWorld) -> None:
    for channel, key in (("sms", "from_number"), ("whatsapp", "whatsapp_from")):
        with pytest.raises(InvalidInput, match=key):
            _send(twilio, credentials=_with(from_number=None, whatsapp_from=None), channel=channel)
    assert world.requests("twilio") == []


def test_what_was_sent_can_be_found_by_recipient_the_newest_first(twilio: TwilioMessages) -> None:
    since = datetime.now(UTC)
    first, second = _send(twilio, body="one"), _send(twilio, body="two")
    _send(twilio, to="+12025550144")
    _send(twilio, channel="whatsapp", body="by WhatsApp")
    found = twilio.list_sent(CREDENTIALS, to=CUSTOMER, channel="sms", since=since)
    assert [message.sid for message in found] == [second.sid, first.sid]
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert twilio.list_sent(CREDENTIALS, to=CUSTOMER, channel="sms", since=later) == []
    (found_there,) = twilio.list_sent(CREDENTIALS, to=CUSTOMER, channel="whatsapp", since=since)
    assert found_there.body == "by WhatsApp"


def test_a_text_without_a_sender_yet_is_found_all_the_same(twilio: TwilioMessages) -> None:
    since = datetime.now(UTC)
    sent = _send(twilio, credentials=_with(messaging_service_sid=SERVICE))
    (found,) = twilio.list_sent(CREDENTIALS, to=CUSTOMER, channel="sms", since=since)
    assert found.sid == sent.sid


def test_one_text_can_be_fetched_and_one_that_is_not_there_is_gone(twilio: TwilioMessages) -> None:
    sent = _send(twilio)
    assert twilio.fetch(CREDENTIALS, sent.sid).body == sent.body
    with pytest.raises(ResourceGone):
        twilio.fetch(CREDENTIALS, "SM" + "0" * 32)


def test_an_account_is_checked_by_asking_for_it(twilio: TwilioMessages) -> None:
    twilio.check_account(CREDENTIALS)
    with pytest.raises(CredentialsRefused):
        twilio.check_account(TwilioCredentials(account_sid=ACCOUNT, auth_token="wrong"))


# --- what Twilio refuses ----------------------------------------------------------------------


@pytest.mark.parametrize("code", [21211, 21408, 21612, 21614, 63007])
def test_a_refusal_carries_its_code_and_nothing_personal(twilio: TwilioMessages, world: RemoteWorld, code: int) -> None:
    world.twilio_recipient(CUSTOMER, refuse=code)
    with pytest.raises(ProviderRefused) as refusal:
        _send(twilio)
    assert refusal.value.provider_code == str(code)
    assert CUSTOMER not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_a_recipient_who_opted_out_is_told_from_other_refusals(twilio: TwilioMessages, world: RemoteWorld) -> None:
    world.opt_out(CUSTOMER)
    with pytest.raises(RecipientOptedOut) as refusal:
        _send(twilio)
    assert refusal.value.provider_code == "21610"


def test_wrong_credentials_concern_their_account_and_open_no_circuit(
    twilio: TwilioMessages, world: RemoteWorld
) -> None:
    wrong = TwilioCredentials(account_sid=ACCOUNT, auth_token="wrong", from_number=NUMBER)
    for _ in range(5):
        with pytest.raises(CredentialsRefused):
            _send(twilio, credentials=wrong)
    assert _send(twilio).status == "queued"


@pytest.mark.parametrize("code", [21611, 14107, 30022])
def test_a_full_queue_is_a_reason_to_wait_not_to_give_up(twilio: TwilioMessages, world: RemoteWorld, code: int) -> None:
    world.twilio_recipient(CUSTOMER, refuse=code)
    with pytest.raises(ProviderThrottled):
        _send(twilio)


def test_too_many_requests_say_when_to_come_back(twilio: TwilioMessages, world: RemoteWorld) -> None:
    world.fault("twilio", "throttle_429", retry_after=7)
    with pytest.raises(ProviderThrottled) as failure:
        _send(twilio)
    assert failure.value.retry_after == timedelta(seconds=7)


# --- what breaks ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["error_500", "error_500_after", "cut_before", "cut_after"])
def test_what_broke_after_it_was_sent_may_have_been_done(twilio: TwilioMessages, world: RemoteWorld, kind: str) -> None:
    world.fault("twilio", kind)
    with pytest.raises(ProviderUnavailable) as failure:
        _send(twilio)
    assert failure.value.maybe_done
    assert len(world.requests("twilio", "create_message")) == 1


def test_a_refused_connection_and_an_unknown_name_certainly_did_nothing() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for base_url in (nobody, "http://no-such-host.invalid"):
            with pytest.raises(ProviderUnavailable) as failure:
                _send(TwilioMessages(base_url))
            assert failure.value.maybe_done is False


def test_a_short_deadline_that_ran_out_says_nothing_against_twilio(twilio: TwilioMessages, world: RemoteWorld) -> None:
    world.fault("twilio", "hang", operation="create_message", times=4)
    begun = time.monotonic()
    for _ in range(4):
        with pytest.raises(DeadlineExceeded) as failure:
            _send(twilio, timeout_seconds=0.2)
        assert failure.value.maybe_done
    assert time.monotonic() - begun < 3
    assert _send(twilio).status == "queued"


def test_three_failures_stop_sms_and_leave_whatsapp_alone(twilio: TwilioMessages, world: RemoteWorld) -> None:
    world.fault("twilio", "error_500", times=3)
    for _ in range(3):
        with pytest.raises(ProviderUnavailable):
            _send(twilio)
    with pytest.raises(CircuitOpen) as refusal:
        _send(twilio)
    assert refusal.value.circuit == TWILIO_SMS
    assert _send(twilio, channel="whatsapp").status == "queued"
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
        _send(TwilioMessages(url))
    assert failure.value.maybe_done


def test_a_problem_document_is_sorted_like_the_classic_error() -> None:
    body = '{"type": "https://t/e", "title": "No", "status": 400, "code": 21610}'
    answer = f"HTTP/1.1 400 Bad Request\nContent-Type: application/problem+json\nContent-Length: {len(body)}\n\n{body}"
    with _server(_saying(answer)) as url, pytest.raises(RecipientOptedOut):
        _send(TwilioMessages(url))


def test_an_answer_that_trickles_in_does_not_outlive_the_time_limit() -> None:
    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            connection.sendall(b" ")
            time.sleep(0.05)

    with _server(trickle) as url:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            _send(TwilioMessages(url), timeout_seconds=0.4)
        assert time.monotonic() - begun < 2


# --- connections ------------------------------------------------------------------------------


def test_threads_send_side_by_side_with_connections_of_their_own(twilio: TwilioMessages, world: RemoteWorld) -> None:
    with ThreadPoolExecutor(8) as pool:
        sids = {sent.sid for sent in pool.map(lambda n: _send(twilio, body=f"text {n}"), range(40))}
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


def test_a_forked_child_does_not_share_its_parents_connections(twilio: TwilioMessages) -> None:
    sent = _send(twilio)
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
