"""Faults on the way to a provider, what is remembered of requests, and the stand-ins as a process."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from sandbox.standins import RemoteWorld, StandIns
from sandbox.standins.world import ControlRefused

SID, TOKEN = "AC" + "7c" * 16, "an-auth-token"
FORM = {"To": "+12025550123", "From": "+12025550100", "Body": "See you at three."}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def world() -> Iterator[RemoteWorld]:
    with StandIns.running(latency=0.0) as world:
        world.twilio_account(SID, TOKEN, [FORM["From"]])
        yield world


def post(world: RemoteWorld, timeout: float = 5) -> requests.Response:
    url = f"{world.twilio_url}/2010-04-01/Accounts/{SID}/Messages.json"
    return requests.post(url, data=FORM, auth=(SID, TOKEN), timeout=timeout)


def listed(world: RemoteWorld) -> requests.Response:
    url = f"{world.twilio_url}/2010-04-01/Accounts/{SID}/Messages.json"
    return requests.get(url, auth=(SID, TOKEN), timeout=5)


@pytest.mark.parametrize(("kind", "done"), [("error_500", 0), ("error_500_after", 1)])
def test_a_500_comes_before_or_after_the_work(world, kind, done):
    world.fault("twilio", kind, times=1)
    assert (post(world).status_code, len(world.messages())) == (500, done)
    assert post(world).status_code == 201


@pytest.mark.parametrize(("kind", "done"), [("cut_before", 0), ("cut_after", 1)])
def test_the_connection_is_cut_before_or_after_the_work(world, kind, done):
    world.fault("twilio", kind, times=1)
    with pytest.raises(requests.ConnectionError):
        post(world)
    assert len(world.messages()) == done
    assert [(request["status"], request["fault"]) for request in world.requests()] == [(None, kind)]
    assert post(world).status_code == 201


def test_a_throttled_request_says_when_to_come_back_and_does_nothing(world):
    world.fault("twilio", "throttle_429", times=1, retry_after=3)
    answer = post(world)
    assert (answer.status_code, answer.headers["Retry-After"], answer.json()["code"]) == (429, "3", 20429)
    assert world.messages() == []


def test_a_slow_answer_is_late_and_right(world):
    world.fault("twilio", "slow", seconds=0.3)
    started = time.monotonic()
    assert post(world).status_code == 201
    assert time.monotonic() - started >= 0.3


def test_a_hanging_request_ends_when_the_fault_is_cleared_with_nothing_done(world):
    world.fault("twilio", "hang")
    with pytest.raises(requests.ReadTimeout):
        post(world, timeout=0.2)
    failures: list[Exception] = []

    def wait_for_it() -> None:
        try:
            post(world)
        except requests.ConnectionError as error:
            failures.append(error)

    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    time.sleep(0.1)
    world.clear_faults()
    waiting.join(5)
    assert len(failures) == 1
    assert world.messages() == []


def test_a_fault_can_concern_one_operation_or_one_provider(world):
    world.fault("twilio", "error_500", operation="create_message")
    world.fault("vapi", "error_500")
    assert (post(world).status_code, listed(world).status_code) == (500, 200)
    world.clear_faults("twilio")
    assert post(world).status_code == 201
    assert [fault["provider"] for fault in world.faults()] == ["vapi"]


def test_googles_token_endpoint_fails_only_by_name(world):
    world.google_client("client-1", "client-secret", "refresh-1")
    grant = {
        "grant_type": "refresh_token",
        "client_id": "client-1",
        "client_secret": "client-secret",
        "refresh_token": "refresh-1",
    }
    world.fault("google", "error_500")
    assert requests.post(world.token_url, data=grant, timeout=5).status_code == 200
    world.fault("google", "error_500", operation="issue_token")
    assert requests.post(world.token_url, data=grant, timeout=5).status_code == 500
    kept = world.requests("google", "issue_token")[0]["body"]
    assert (kept["client_secret"], kept["refresh_token"]) == ("***", "***")


def test_every_request_is_remembered_without_its_credentials(world):
    post(world)
    [request] = world.requests("twilio", "create_message")
    assert (request["method"], request["status"], request["body"]) == ("POST", 201, FORM)
    assert "Authorization" not in request["headers"]
    assert world.requests("google") == []


def test_an_unknown_route_is_refused_in_the_providers_words(world):
    assert requests.get(f"{world.twilio_url}/2010-04-01/Nothing.json", timeout=5).json()["code"] == 20404
    assert requests.get(f"{world.google_url}nothing", timeout=5).json()["error"]["code"] == 404


def test_an_unknown_fault_or_control_is_refused(world):
    with pytest.raises(ControlRefused):
        world.fault("twilio", "explode")
    with pytest.raises(ControlRefused):
        world.events("nowhere@example.com")


def test_every_answer_takes_the_latency(world):
    world.latency(0.15)
    started = time.monotonic()
    post(world)
    assert time.monotonic() - started >= 0.15


def test_a_reset_forgets_everything(world):
    post(world)
    world.fault("twilio", "error_500")
    world.reset()
    assert (world.messages(), world.requests(), world.faults()) == ([], [], [])
    assert post(world).status_code == 401


def test_after_it_has_stopped_nobody_answers():
    with StandIns.running(latency=0.0) as world:
        url = world.twilio_url
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=2)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_started_twice_finds_its_world_again(tmp_path, signal_number):
    state = tmp_path / "world.json"
    with process(state, signal_number) as world:
        world.twilio_account(SID, TOKEN, [FORM["From"]])
        world.calendar("desk@example.com")
        event = world.insert_foreign_event("desk@example.com", "2027-03-01T10:00:00", "2027-03-01T11:00:00")
        sid = post(world).json()["sid"]
    with process(state, signal_number) as world:
        assert [message["sid"] for message in world.messages()] == [sid]
        assert world.events("desk@example.com") == [event]
        assert post(world).status_code == 201
    assert state.stat().st_mode & 0o077 == 0


class process:
    """``python -m sandbox.standins`` for the length of a block; it must end cleanly when told to."""

    def __init__(self, state: Path, signal_number: int) -> None:
        command = [sys.executable, "-m", "sandbox.standins", "--port", "0", "--state", str(state), "--latency", "0"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self._signal = signal_number

    def __enter__(self) -> RemoteWorld:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("stand-ins ready at http://127.0.0.1:")
        return RemoteWorld(line.split()[-1])

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(self._signal)
        assert self._process.wait(15) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()
