"""Whose turn it is: at a provider's rate, and at a circuit that may be tried again."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import text

from app.errors import CircuitOpen, ProviderUnavailable
from app.integrations.breaker import FORWARD, circuits
from app.models import attempts
from app.services import handlers
from app.services.drain import Drain
from tests.conftest import make_settings
from tests.eventually import eventually
from tests.integration.test_booking import ADA, appointments, hurry_finishing, tomorrow
from tests.integration.test_texts import plan, rows
from tests.probes import put_probes


def system(platform, statement):
    with platform.database.transaction(system=True) as session:
        return [tuple(row) for row in session.execute(text(statement)).all()]


@pytest.fixture
def settings(database_urls, world):
    return make_settings(database_urls, world, google_changes_per_second=3)  # as outside of tests


@pytest.fixture
def handle(monkeypatch):
    def register(function):
        monkeypatch.setitem(handlers._HANDLERS, ("test", "probe"), function)

    return register


def test_texts_beyond_the_senders_rate_have_a_date_and_spend_no_attempt(another, people, world):
    slow = another(twilio_texts_per_second=2)
    world.twilio_settings(sender_rate=2)
    for number in range(4):
        plan(slow, people.salon, f"number {number}", to=f"+4915100000{number:03d}")
    drain = Drain(slow, threads=4)
    drain.run(seconds=0.3)
    sends = "FROM webhook_delivery_log WHERE type = 'message.send' AND status"
    assert system(slow, f"SELECT count(*) {sends} = 'processed'") == [(2,)]
    waiting = system(slow, f"SELECT attempts, extract(epoch FROM next_attempt_at - now())::float8 {sends} = 'retrying'")
    assert [spent for spent, _ in waiting] == [0, 0]
    assert all(left < 1.6 for _, left in waiting)
    # At its rate to the end: another that knows of none would send the rest at their dates, and they may come together.
    eventually(lambda: drain.run() == 0 and rows(slow, people.salon) == ["sent"] * 4, seconds=20)
    assert {one["status"] for one in world.requests("twilio", "create_message")} == {201}


def test_a_429_that_comes_all_the_same_lets_nobody_else_try_for_as_long(platform, people, world):
    world.fault("twilio", "throttle_429", operation="create_message", times=1, retry_after=30)
    plan(platform, people.salon, "one")
    Drain(platform, threads=1).run(seconds=0.2)
    plan(platform, people.salon, "two", to="+4915100000001")
    Drain(platform, threads=1).run(seconds=0.2)
    assert len(world.requests("twilio", "create_message")) == 1
    found = system(platform, "SELECT extract(epoch FROM next_attempt_at - now())::float8 FROM webhook_delivery_log")
    assert all(25 < left <= 31 for (left,) in found)


def test_a_caller_comes_first_and_the_finisher_waits_for_the_token(client, platform, people, world):
    salon = people.salon
    world.fault("google", "error_500")
    salon.tool(client, "book_appointment", call_id="c", start=tomorrow(9).isoformat(), name="Ada", phone=ADA)
    world.clear_faults()
    circuits.reset()
    account = f"google:{platform.directory.integration(salon.id, 'google-calendar').integration_id}"
    rate = platform.settings.google_changes_per_second
    taken = 0
    while not platform.rates.take(account, rate, holder=f"h{taken}"):
        taken += 1
    said = salon.tool(client, "book_appointment", call_id="d", start=tomorrow(11).isoformat(), name="Bo", phone=ADA)
    assert said.startswith("Booked for")
    hurry_finishing(platform)
    Drain(platform, threads=1).run(seconds=0.2)
    assert [row.status for row in appointments(platform, salon)] == ["pending", "booked"]
    finishing = "FROM webhook_delivery_log WHERE type = 'appointment.finish' AND status = 'retrying'"
    assert system(platform, f"SELECT attempts, error_code {finishing}") == [(0, "postponed")]


def test_an_integration_has_a_rate_of_its_own(people, platform):
    from app.services.credentials import parse_credentials
    from app.services.turns import take_for_text

    given = {"account_sid": "AC" + "0" * 32, "auth_token": "t", "from_number": "+12025550123", "texts_per_second": "1"}
    credentials = parse_credentials("twilio", given)

    class Text:
        id, channel = "m1", "sms"

    take_for_text(platform, credentials, Text)
    with pytest.raises(Exception, match="comes later"):
        take_for_text(platform, credentials, Text)


def test_of_many_that_wait_for_a_circuit_one_is_woken_to_probe_and_its_failure_costs_no_attempt(
    platform, people, handle
):
    probing = ProviderUnavailable()
    probing.circuit, probing.probing = "vapi", True
    outcome = [CircuitOpen("vapi", retry_after=timedelta(seconds=30))]

    def handler(_):
        raise outcome[0]

    handle(handler)
    put_probes(platform, people.salon.id, *"abc")
    Drain(platform, threads=1).run()
    due = "SELECT lane_key FROM lanes WHERE due_at <= now()"
    assert system(platform, due) == []
    outcome[0] = probing
    for _ in "abc":
        with platform.database.transaction(system=True) as session:
            assert attempts.wake_one(session, "vapi")
        assert len(system(platform, due)) == 1
        Drain(platform, threads=1).run()
    found = system(platform, "SELECT lane_key, attempts, error_code, waiting_on FROM webhook_delivery_log ORDER BY 1")
    assert found == [(lane, 0, "provider_unavailable", "vapi") for lane in "abc"]


@pytest.mark.parametrize("circuit", ["twilio_sms", f"{FORWARD}:somebodys"])
def test_what_its_circuit_refused_just_before_it_closed_does_not_wait_for_the_sweep(platform, people, handle, circuit):
    asked = []

    def handler(_):
        asked.append(1)
        if len(asked) == 1:
            platform.waker.circuit_changed(circuit, "half_open", "closed")
            eventually(lambda: not [one for one in threading.enumerate() if one.name == "wake"])  # it has found nobody
            raise CircuitOpen(circuit, retry_after=timedelta(hours=1))

    handle(handler)
    put_probes(platform, people.salon.id, "a")
    drain = Drain(platform, threads=1)
    drain.run()
    eventually(lambda: drain.run() == 0 and len(asked) == 2, seconds=2)  # parked, it would wait for four
    assert system(platform, "SELECT status, attempts FROM webhook_delivery_log") == [("processed", 1)]


def test_what_was_parked_just_when_its_circuit_closed_is_found_by_the_sweep(platform, people, handle):
    parked = []

    def handler(_):
        if not parked:
            parked.append(1)
            raise CircuitOpen("vapi", retry_after=timedelta(hours=1))

    handle(handler)
    put_probes(platform, people.salon.id, "a")
    Drain(platform, threads=1).run()
    assert system(platform, "SELECT status FROM webhook_delivery_log") == [("retrying",)]
    platform.caretaker.sweep()  # wakes it
    platform.caretaker.sweep()  # and delivers it, because nobody can be rung for
    assert system(platform, "SELECT status FROM webhook_delivery_log") == [("processed",)]
