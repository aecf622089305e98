"""Twilio's stand-in, asked through Twilio's own library and answered for with its own signatures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from werkzeug import Request, Response
from werkzeug.serving import make_server

from sandbox.standins import RemoteWorld, StandIns

SID, TOKEN = "AC" + "7c" * 16, "an-auth-token"
OURS, THEIRS = "+12025550100", "+12025550123"
SERVICE, CONTENT = "MG" + "5a" * 16, "HX" + "3b" * 16


class Redirected(TwilioHttpClient):
    """Twilio's client with only the host rewritten."""

    def __init__(self, base: str) -> None:
        super().__init__(timeout=10)
        self._base = base

    def request(self, method, url, *args, **kwargs):
        return super().request(method, url.replace("https://api.twilio.com", self._base), *args, **kwargs)


class Listener:
    """A web server that keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[Request] = []
        self.answer_with = 200
        self._server = make_server("127.0.0.1", 0, self._hear, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _hear(self, environ, start_response):
        request = Request(environ)
        _ = request.form
        self.heard.append(request)
        return Response(status=self.answer_with)(environ, start_response)

    @property
    def statuses(self) -> list[str]:
        return [request.form["MessageStatus"] for request in self.heard]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def world() -> Iterator[RemoteWorld]:
    with StandIns.running(latency=0.0) as world:
        world.twilio_account(
            SID,
            TOKEN,
            [OURS, f"whatsapp:{OURS}"],
            messaging_services={SERVICE: [OURS], "MG" + "0" * 32: []},
            contents={CONTENT: "Your table at {{1}} is ready."},
            api_keys={"SK1": "key-secret"},
        )
        world.twilio_settings(callback_delay=0.01)
        yield world


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def client(world: RemoteWorld, username: str = SID, password: str = TOKEN) -> Client:
    return Client(username, password, SID, http_client=Redirected(world.twilio_url))


def send(world: RemoteWorld, **fields):
    return client(world).messages.create(**({"to": THEIRS, "from_": OURS, "body": "See you at three."} | fields))


def refusal(world: RemoteWorld, **fields) -> tuple[int, int]:
    with pytest.raises(TwilioRestException) as caught:
        send(world, **fields)
    return caught.value.status, caught.value.code


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_message_is_queued_and_then_delivered(world):
    message = send(world)
    assert (message.status, message.from_, message.date_sent) == ("queued", OURS, None)
    eventually(lambda: client(world).messages(message.sid).fetch().status == "delivered")
    assert client(world).messages(message.sid).fetch().date_sent is not None


def test_a_messaging_service_chooses_its_sender_later(world):
    world.twilio_settings(callback_delay=0.3)
    message = send(world, from_=None, messaging_service_sid=SERVICE)
    assert (message.status, message.from_) == ("accepted", None)
    eventually(lambda: client(world).messages(message.sid).fetch().from_ == OURS)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"to": ""}, 21604),
        ({"to": "202-555-0123"}, 21211),
        ({"to": "+1202"}, 21211),
        ({"to": OURS}, 21266),
        ({"to": f"whatsapp:{THEIRS}"}, 21910),
        ({"from_": None}, 21603),
        ({"from_": "+12025550199"}, 21606),
        ({"from_": "desk"}, 21212),
        ({"from_": "whatsapp:+12025550199"}, 63007),
        ({"body": ""}, 21602),
        ({"body": "x" * 1601}, 21617),
        ({"status_callback": "not a url"}, 21609),
        ({"from_": None, "messaging_service_sid": "MG" + "9" * 32}, 21701),
        ({"from_": None, "messaging_service_sid": "MG" + "0" * 32}, 21703),
        ({"body": None, "content_sid": "HX" + "9" * 32}, 21655),
        ({"body": None, "content_sid": CONTENT, "content_variables": "no json"}, 21656),
    ],
)
def test_what_twilio_refuses_is_refused_with_its_code(world, fields, code):
    assert refusal(world, **fields) == (400, code)
    assert world.messages() == []


def test_the_longest_body_is_taken(world):
    assert send(world, body="x" * 1600).status == "queued"


def test_a_recipient_can_be_made_unreachable_at_once(world):
    world.twilio_recipient(THEIRS, refuse=21614)
    assert refusal(world) == (400, 21614)


def test_wrong_credentials_are_401_and_an_api_key_is_as_good_as_the_token(world):
    for username, password in ((SID, "wrong"), ("SK2", "key-secret")):
        with pytest.raises(TwilioRestException) as caught:
            client(world, username, password).messages.create(to=THEIRS, from_=OURS, body="Hello")
        assert (caught.value.status, caught.value.code) == (401, 20003)
    assert client(world, "SK1", "key-secret").api.accounts(SID).fetch().status == "active"


def test_who_has_texted_stop_gets_nothing_until_start(world):
    world.opt_out(THEIRS, OURS)
    assert refusal(world) == (400, 21610)
    assert refusal(world, from_=None, messaging_service_sid=SERVICE) == (400, 21610)
    assert send(world, from_=f"whatsapp:{OURS}", to=f"whatsapp:{THEIRS}").status == "queued"
    world.opt_in(THEIRS)
    assert send(world).status == "queued"


def test_a_message_that_does_not_exist_is_20404(world):
    with pytest.raises(TwilioRestException) as caught:
        client(world).messages("SM" + "0" * 32).fetch()
    assert (caught.value.status, caught.value.code) == (404, 20404)


def test_callbacks_carry_the_query_and_a_signature_that_twilios_library_accepts(world, listener):
    url = f"{listener.url}/status?m=0b6c&name=Jos%C3%A9"
    message = send(world, status_callback=url)
    eventually(lambda: len(world.callbacks()) == 2)
    assert listener.statuses == ["sent", "delivered"]
    for request in listener.heard:
        assert RequestValidator(TOKEN).validate(url, request.form, request.headers["X-Twilio-Signature"])
        assert request.form["MessageSid"] == message.sid
        assert request.args["m"] == "0b6c"
    assert [call["answer"] for call in world.callbacks()] == [200, 200]


def test_whatsapp_is_read_and_reports_its_channel(world, listener):
    send(world, from_=f"whatsapp:{OURS}", to=f"whatsapp:{THEIRS}", status_callback=listener.url)
    eventually(lambda: len(listener.heard) == 3)
    assert listener.statuses == ["sent", "delivered", "read"]
    last = listener.heard[-1].form
    assert (last["ChannelPrefix"], last["EventType"]) == ("whatsapp", "READ")
    assert last["ChannelToAddress"].endswith("XXXX")
    assert "ChannelInstallSid" not in last


def test_outside_the_window_whatsapp_is_taken_and_then_fails_unless_it_is_a_template(world, listener):
    addresses = {"from_": f"whatsapp:{OURS}", "to": f"whatsapp:{THEIRS}", "status_callback": listener.url}
    world.twilio_recipient(f"whatsapp:{THEIRS}", window_open=False)
    assert send(world, **addresses).status == "queued"
    eventually(lambda: len(listener.heard) == 1)
    assert (listener.statuses, listener.heard[0].form["ErrorCode"]) == (["failed"], "63016")
    template = {"body": None, "content_sid": CONTENT, "content_variables": '{"1": "three"}'}
    assert send(world, **addresses, **template).body == "Your table at three is ready."
    eventually(lambda: "delivered" in listener.statuses)


def test_a_carriers_failure_comes_after_sent(world, listener):
    world.twilio_recipient(THEIRS, fail=30005)
    message = send(world, status_callback=listener.url)
    eventually(lambda: len(listener.heard) == 2)
    assert listener.statuses == ["sent", "undelivered"]
    assert client(world).messages(message.sid).fetch().error_code == 30005


def test_callbacks_can_be_shuffled_and_repeated_and_the_message_never_goes_back(world, listener):
    world.twilio_settings(shuffle=True, duplicates=2, statuses=["sending", "sent", "delivered"])
    message = send(world, status_callback=listener.url)
    eventually(lambda: len(listener.heard) == 9)
    assert sorted(listener.statuses) == sorted(["sending", "sent", "delivered"] * 3)
    assert client(world).messages(message.sid).fetch().status == "delivered"


def test_a_callback_is_tried_again_only_when_it_could_not_connect(world, listener):
    listener.answer_with = 500
    send(world, status_callback=listener.url)
    eventually(lambda: len(world.callbacks()) == 2)
    assert {call["attempts"] for call in world.callbacks()} == {1}
    listener.close()
    send(world, status_callback=listener.url)
    eventually(lambda: len(world.callbacks()) == 4)
    assert {call["attempts"] for call in world.callbacks()[2:]} == {2}


def test_the_urls_fragment_asks_for_more_attempts_and_is_not_sent(world, listener):
    listener.answer_with = 503
    world.twilio_settings(statuses=["sent"])
    send(world, status_callback=f"{listener.url}/status#rc=2&rp=5xx,ct")
    eventually(lambda: len(world.callbacks()) == 1)
    assert [request.path for request in listener.heard] == ["/status"] * 3


def test_the_list_is_newest_first_filtered_and_paged(world):
    sids = [send(world, body=f"number {number}").sid for number in range(5)]
    send(world, to="+12025550124")
    found = client(world).messages.list(to=THEIRS, from_=OURS, page_size=2)
    assert [message.sid for message in found] == sids[::-1]


def test_messages_that_are_not_sent_yet_have_no_date_to_be_found_by(world):
    world.twilio_settings(callback_delay=0.4)
    send(world)
    since = datetime.now(UTC) - timedelta(minutes=5)
    assert client(world).messages.list(date_sent_after=since) == []
    eventually(lambda: len(client(world).messages.list(date_sent_after=since)) == 1)
    assert client(world).messages.list(date_sent_before=since) == []


def test_the_list_can_lag_behind_while_the_message_itself_can_be_fetched(world):
    world.delayed_listing(0.5)
    message = send(world)
    assert client(world).messages.list(to=THEIRS) == []
    assert client(world).messages(message.sid).fetch().sid == message.sid
    eventually(lambda: len(client(world).messages.list(to=THEIRS)) == 1)


def test_another_accounts_messages_are_not_seen(world):
    message = send(world)
    other = "AC" + "8d" * 16
    world.twilio_account(other, "other-token", ["+12025550177"])
    stranger = Client(other, "other-token", http_client=Redirected(world.twilio_url))
    assert stranger.messages.list() == []
    with pytest.raises(TwilioRestException):
        stranger.messages(message.sid).fetch()
