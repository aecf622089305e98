"""Asking Vapi, over HTTP, against its stand-in."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from app.errors import (
    ConfigurationError,
    CredentialsRefused,
    DeadlineExceeded,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
    ResourceGone,
)
from app.integrations.breaker import circuits
from app.integrations.vapi import VapiClient
from sandbox.standins.world import RemoteWorld

KEY = "vapi-private-key"


@pytest.fixture(autouse=True)
def _closed_circuits() -> Iterator[None]:
    circuits.reset()
    yield
    circuits.reset()


@pytest.fixture
def client(world: RemoteWorld) -> VapiClient:
    world.vapi_key(KEY)
    return VapiClient(world.vapi_url, SecretStr(KEY))


def start(client: VapiClient, world: RemoteWorld, **more: float) -> str:
    assistant, number = world.assistant(KEY), world.phone_number(KEY, "+15005550006")
    return client.start_call(
        assistant_id=assistant["id"],
        phone_number_id=number["id"],
        customer_number="+15005550001",
        assistant_overrides={"variableValues": {"reason": "reminder"}},
        name="reminder",
        **more,
    ).id


def test_a_call_is_started_fetched_and_listed(client: VapiClient, world: RemoteWorld) -> None:
    call_id = start(client, world)
    call = client.fetch_call(call_id)
    assert (call.id, call.status, call.customer_number) == (call_id, "queued", "+15005550001")
    assert [listed.id for listed in client.list_calls(limit=5)] == [call_id]
    assert client.list_calls(created_after=datetime.now(UTC) + timedelta(minutes=1)) == []


def test_what_a_call_carries_of_secrets_is_scrubbed(client: VapiClient, world: RemoteWorld) -> None:
    call = world.put_call(KEY, status="ended", phoneNumber={"twilioAuthToken": "LEAK"})
    assert "LEAK" not in str(client.fetch_call(call["id"]).document)


def test_a_probe_succeeds_with_the_key_and_says_when_it_is_wrong(client: VapiClient, world: RemoteWorld) -> None:
    client.probe()
    with pytest.raises(CredentialsRefused):
        VapiClient(world.vapi_url, "another").probe()


def test_an_unknown_call_is_gone_and_a_bad_request_refused(client: VapiClient) -> None:
    with pytest.raises(ResourceGone):
        client.fetch_call("../call/no such/../one?x")
    with pytest.raises(ProviderRefused) as refused:
        client.start_call(assistant_id="x", phone_number_id="y", customer_number="+15005550001")
    assert refused.value.provider_code == "400"
    assert "15005550001" not in str(refused.value)


def test_slower_please_comes_with_its_wish(client: VapiClient, world: RemoteWorld) -> None:
    world.fault("vapi", "throttle_429", retry_after=7)
    with pytest.raises(ProviderThrottled) as throttled:
        client.probe()
    assert throttled.value.retry_after == timedelta(seconds=7)


@pytest.mark.parametrize("kind", ["error_500", "error_500_after", "cut_before", "cut_after"])
def test_a_start_that_failed_on_the_way_may_have_been_done_and_is_sent_once(
    client: VapiClient, world: RemoteWorld, kind: str
) -> None:
    client.probe()  # an idle connection must not make requests send the start again
    world.fault("vapi", kind, operation="create_call")
    with pytest.raises(ProviderUnavailable) as failed:
        start(client, world)
    assert failed.value.maybe_done
    assert len(world.requests("vapi", "create_call")) == 1


def test_a_look_that_failed_has_done_nothing(client: VapiClient, world: RemoteWorld) -> None:
    world.fault("vapi", "cut_after")
    with pytest.raises(ProviderUnavailable) as failed:
        client.list_calls()
    assert not failed.value.maybe_done


def test_nobody_home_means_that_nothing_was_done() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = VapiClient(f"http://127.0.0.1:{taken.getsockname()[1]}", KEY)
        with pytest.raises(ProviderUnavailable) as failed:
            nobody.start_call(assistant_id="a", phone_number_id="p", customer_number="+15005550001")
    assert not failed.value.maybe_done


def test_a_short_time_limit_is_the_callers_and_a_full_one_vapis(client: VapiClient, world: RemoteWorld) -> None:
    world.fault("vapi", "hang")
    with pytest.raises(DeadlineExceeded):
        client.probe(timeout_seconds=0.2)
    began = time.monotonic()
    with pytest.raises(ProviderUnavailable):
        client.probe(timeout_seconds=2.0)
    assert time.monotonic() - began < 3


def test_an_answer_that_trickles_is_ended_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_trickle, args=(server,), daemon=True).start()
        client = VapiClient(f"http://127.0.0.1:{server.getsockname()[1]}", KEY)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.probe(timeout_seconds=0.5)
        assert time.monotonic() - began < 1.5


def _trickle(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(40):
            try:
                connection.sendall(b" ")
            except OSError:
                return
            time.sleep(0.1)


def test_a_key_no_header_can_carry_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError):
        VapiClient("http://127.0.0.1:1", "two\r\nlines")
