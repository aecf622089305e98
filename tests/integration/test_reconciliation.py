"""They have N, we have N: what never arrived is found at the provider and goes the way of every event."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from app.config import Settings
from app.errors import InvalidInput
from app.models import Call, Delivery, Message, OptOut, Reconciliation, RoutingKey
from app.models.operations import hold_singleton, keep_date
from app.services.alert_causes import SHARED
from app.services.drain import Drain
from app.services.messages import plan_text
from app.services.platform import Platform
from app.services.reconciliation import comparing
from app.services.reconciliation.comparing import BusyComparing, compare
from app.services.reconciliation.periodic import DUE
from sandbox.standins import RemoteWorld
from tests.command_line import CommandLine
from tests.conftest import Urls, make_settings
from tests.eventually import eventually
from tests.people import Business, People

CUSTOMER = "+4915112345678"
KEY = "a-private-key-of-the-tests"


@pytest.fixture
def settings(database_urls: Urls, world: RemoteWorld) -> Settings:
    return make_settings(database_urls, world, vapi_private_key=KEY)


@pytest.fixture(autouse=True)
def vapi(world: RemoteWorld) -> None:
    world.vapi_key(KEY)


@pytest.fixture(autouse=True)
def numbers(people: People, platform: Platform) -> None:
    """Each organization's number names it, as `org set --number` does."""
    with platform.database.transaction(system=True) as session:
        for business in (people.salon, people.dental):
            session.add(RoutingKey(kind="phone_number", value=business.number, org_id=business.id))
    platform.directory.forget()


def ago(**span: float) -> datetime:
    return datetime.now(UTC) - timedelta(**span)


def ended_call(world: RemoteWorld, business: Business, call_id: str, *, at: datetime, **more: Any) -> None:
    begun = at - timedelta(minutes=2)
    facts: dict[str, Any] = {
        "type": "inboundPhoneCall",
        "status": "ended",
        "endedReason": "customer-ended-call",
        "createdAt": begun.isoformat(),
        "startedAt": begun.isoformat(),
        "endedAt": at.isoformat(),
        "cost": 0.21,
        "customer": {"number": CUSTOMER},
        "phoneNumber": {"number": business.number, "twilioAuthToken": "secret"},
        "artifact": {"transcript": "User: hello there"},
        "analysis": {"summary": "Said hello."},
    }
    world.put_call(KEY, id=call_id, **facts | more)


def one(done: dict[str, Any], provider: str, business: Business) -> dict[str, Any]:
    (found,) = [
        row for row in done["integrations"] if row["provider"] == provider and row["org_id"] == str(business.id)
    ]
    return found


def deliver(platform: Platform) -> None:
    Drain(platform, threads=2).run(seconds=10)


def test_a_call_whose_report_never_came_is_filled_in_and_its_late_report_is_a_duplicate(
    cli: CommandLine, people: People, world: RemoteWorld, platform: Platform, client: FlaskClient
) -> None:
    ended_call(world, people.salon, "call-lost", at=ago(minutes=20))
    ended_call(world, people.salon, "call-told", at=ago(minutes=30))
    ended_call(world, people.dental, "call-dental", at=ago(hours=3))
    ended_call(world, people.salon, "call-old", at=ago(hours=30))  # before the window
    ended_call(world, people.salon, "call-fresh", at=ago(minutes=1))  # its webhook may be under way
    ended_call(world, people.salon, "call-runs", at=ago(minutes=20), status="in-progress")
    report = {"type": "end-of-call-report", "call": {"id": "call-told"}, "endedReason": "customer-ended-call"}
    people.salon.vapi(client, {**report, "phoneNumber": {"number": people.salon.number}})

    would = cli.data("reconcile", "--dry-run")
    mine = one(would, "vapi", people.salon)
    assert (mine["theirs"], mine["ours"], mine["missing"], mine["filled"]) == (2, 1, 1, 0)
    assert len(cli.data("deliveries", "list")) == 1
    done = cli.data("reconcile")
    mine, dentals = one(done, "vapi", people.salon), one(done, "vapi", people.dental)
    assert (mine["theirs"], mine["ours"], mine["missing"], mine["filled"]) == (2, 1, 1, 1)
    assert (dentals["theirs"], dentals["filled"]) == (1, 1)
    deliver(platform)
    with platform.database.transaction(people.salon.id) as session:
        call = session.scalars(select(Call).where(Call.vapi_call_id == "call-lost")).one()
        assert (call.status, call.customer_number, call.transcript) == ("ended", CUSTOMER, "User: hello there")
        assert (call.summary, float(call.cost or 0)) == ("Said hello.", 0.21)
        assert call.reported_at is not None
    filled = [row for row in cli.data("deliveries", "list") if row["note"] and "reconciled" in row["note"]]
    assert {row["event_id"] for row in filled} == {"end-of-call-report:call-lost", "end-of-call-report:call-dental"}
    assert "secret" not in str(cli.data("deliveries", "show", filled[0]["id"]))

    late = {"type": "end-of-call-report", "call": {"id": "call-lost"}, "transcript": "another"}
    assert people.salon.vapi(client, late).status_code == 200
    deliver(platform)
    again = cli.data("reconcile", "--since", "23h")
    assert (again["theirs"], again["ours"], again["missing"]) == (3, 3, 0)
    assert len([row for row in cli.data("deliveries", "list") if row["provider"] == "vapi"]) == 3


def test_a_text_that_never_came_is_handled_like_any_other_and_stop_takes_effect(
    cli: CommandLine, people: People, world: RemoteWorld, platform: Platform, client: FlaskClient
) -> None:
    salon = people.salon
    lost = world.inbound_message(salon.account_sid, CUSTOMER, salon.number, "Hello?", sent_at=ago(minutes=40))
    world.inbound_message(
        salon.account_sid, f"whatsapp:{CUSTOMER}", f"whatsapp:{salon.number}", "Hi", sent_at=ago(hours=2)
    )
    world.inbound_message(salon.account_sid, CUSTOMER, "+4930999990000", "not ours", sent_at=ago(minutes=40))
    world.inbound_message(salon.account_sid, CUSTOMER, salon.number, "too old", sent_at=ago(hours=25))
    world.inbound_message(salon.account_sid, CUSTOMER, salon.number, "STOP", sent_at=ago(minutes=30))
    known = world.inbound_message(salon.account_sid, CUSTOMER, salon.number, "told", sent_at=ago(minutes=50))
    salon.text(client, CUSTOMER, "told", sid=known)
    done = one(cli.data("reconcile"), "twilio", salon)
    assert (done["theirs"], done["ours"], done["missing"], done["filled"], done["foreign"]) == (4, 1, 3, 3, 1)
    with platform.database.transaction(salon.id) as session:
        assert session.get(OptOut, (salon.id, CUSTOMER)).opted_out  # type: ignore[union-attr]
    deliver(platform)
    with platform.database.transaction(salon.id) as session:
        bodies = session.scalars(select(Message.body).order_by(Message.created_at)).all()
    assert sorted(bodies) == ["Hello?", "Hi", "STOP", "told"]
    salon.text(client, CUSTOMER, "Hello?", sid=lost)  # its webhook, after all
    deliver(platform)
    assert len(cli.data("messages", "list")) == 4
    assert one(cli.data("reconcile", "--since", "23h"), "twilio", salon)["missing"] == 0


def test_an_older_stop_does_not_undo_what_its_sender_has_said_since(
    people: People, world: RemoteWorld, platform: Platform, client: FlaskClient
) -> None:
    salon = people.salon
    world.inbound_message(salon.account_sid, CUSTOMER, salon.number, "STOP", sent_at=ago(hours=1))
    salon.text(client, CUSTOMER, "START")
    assert compare(platform)["filled"] == 1
    with platform.database.transaction(salon.id) as session:
        assert not session.get(OptOut, (salon.id, CUSTOMER)).opted_out  # type: ignore[union-attr]


def test_news_of_a_text_of_ours_that_never_came_is_filled_in(
    people: People, world: RemoteWorld, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "UNDER_WAY", timedelta(0))
    with platform.database.transaction(people.salon.id) as session:
        plan_text(
            session, people.salon.id, to=CUSTOMER, body="One.", channel="sms", idempotency_key="1", purpose="test"
        )
    deliver(platform)

    def fate() -> str:
        with platform.database.transaction(people.salon.id) as session:
            return session.scalars(select(Message.status)).one()

    assert fate() == "sent"
    eventually(lambda: world.messages()[0]["status"] == "delivered")  # and no callback reaches these tests
    eventually(lambda: compare(platform)["filled"] == 1)
    deliver(platform)
    assert fate() == "delivered"


def test_a_calendar_change_of_which_nothing_was_told_plans_a_sync(
    people: People, world: RemoteWorld, platform: Platform, monkeypatch: pytest.MonkeyPatch, settle: Callable[..., None]
) -> None:
    from app.services import calendar_sync
    from app.services.reconciliation import calendar

    monkeypatch.setattr(calendar_sync, "GAP", timedelta(0))
    compare(platform)  # nothing is known yet: a first sync is planned
    deliver(platform)
    assert compare(platform)["missing"] == 0
    world.insert_foreign_event(people.salon.calendar_id, "2031-03-04T10:00", "2031-03-04T11:00", summary="Dentist")
    monkeypatch.setattr(calendar, "LATE", timedelta(seconds=-5))
    done = one(compare(platform), "google-calendar", people.salon)
    assert (done["theirs"], done["missing"], done["filled"]) == (1, 1, 1)
    settle(lambda: compare(platform)["missing"] == 0)


def test_one_integrations_trouble_is_not_anothers_and_it_goes_on_from_where_it_was(
    people: People, world: RemoteWorld, platform: Platform
) -> None:
    compare(platform)
    with platform.database.transaction(system=True) as session:
        first = {row.integration_id: row.compared_until for row in session.scalars(select(Reconciliation))}
    world.twilio_account(people.salon.account_sid, secrets.token_hex(16), numbers=[people.salon.number])
    world.inbound_message(people.dental.account_sid, CUSTOMER, people.dental.number, "Hi", sent_at=ago(minutes=7))
    done = compare(platform)
    refused, fine = one(done, "twilio", people.salon), one(done, "twilio", people.dental)
    assert (refused["error"], fine["error"], fine["filled"]) == ("credentials_refused", None, 1)
    with platform.database.transaction(system=True) as session:
        rows = {str(row.integration_id): row for row in session.scalars(select(Reconciliation))}
    assert rows[refused["id"]].compared_until == first[rows[refused["id"]].integration_id]
    assert rows[refused["id"]].error_code == "credentials_refused"
    assert rows[fine["id"]].compared_until > first[rows[fine["id"]].integration_id]
    causes = [cause for look in SHARED if "reconcile_missing" in look.kinds for cause in look.find(platform)]
    assert [(cause.facts["provider"], cause.facts["count"]) for cause in causes] == [("twilio", 1)]


def test_with_more_than_a_page_every_call_is_met_once(
    people: People, world: RemoteWorld, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.services.reconciliation import vapi as calls

    monkeypatch.setattr(calls, "PAGE", 3)
    for number in range(8):
        ended_call(world, people.salon, f"call-{number}", at=ago(minutes=20, seconds=number))
    done = one(compare(platform, since=ago(hours=1)), "vapi", people.salon)
    assert (done["theirs"], done["filled"], done["more"]) == (8, 8, False)


def test_more_texts_than_one_list_takes_are_listed_by_halves(
    people: People, world: RemoteWorld, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.services.reconciliation import twilio as texts

    monkeypatch.setattr(texts, "MOST", 4)
    salon = people.salon
    for number in range(10):
        at = ago(minutes=10 + 8 * number)
        world.inbound_message(salon.account_sid, CUSTOMER, salon.number, f"text {number}", sent_at=at)
    done = one(compare(platform, since=ago(hours=2)), "twilio", salon)
    assert (done["filled"], done["more"]) == (10, False)
    with platform.database.transaction(system=True) as session:
        texts_in = select(Delivery.occurred_at).where(Delivery.provider == "twilio").order_by(Delivery.id)
        order = session.scalars(texts_in).all()
    assert order == sorted(order)  # as they were sent


def test_a_call_that_nobody_owns_is_foreign_and_one_organizations_view_shows_no_other(
    people: People, world: RemoteWorld, platform: Platform
) -> None:
    ended_call(world, people.dental, "call-dental", at=ago(minutes=20))
    ended_call(world, people.salon, "call-x", at=ago(minutes=20), phoneNumber={"number": "+12025550143"})
    done = compare(platform, org_id=people.salon.id)
    assert (done["theirs"], done["filled"], sum(row["foreign"] for row in done["integrations"])) == (0, 0, 2)
    assert compare(platform)["filled"] == 1


def test_one_process_leads_and_nothing_older_than_the_window_is_asked_for(people: People, platform: Platform) -> None:
    with platform.database.transaction(system=True) as session:
        assert hold_singleton(session, "reconcile", holder="another", lease=timedelta(minutes=1))
    with pytest.raises(BusyComparing):
        compare(platform)
    with pytest.raises(InvalidInput):
        compare(platform, since=ago(hours=25))


def test_it_happens_by_itself_when_its_date_has_come_and_once_for_all_processes(
    people: People, world: RemoteWorld, platform: Platform, another: Callable[..., Platform]
) -> None:
    ended_call(world, people.salon, "call-lost", at=ago(minutes=20))
    other = another()
    assert not platform.reconciler.begin_if_due()  # an interval after the first start, not at once
    with platform.database.transaction(system=True) as session:
        keep_date(session, DUE, ago(seconds=1), holder="test")
    assert [platform.reconciler.begin_if_due(), other.reconciler.begin_if_due()] == [True, False]

    def filled() -> bool:
        with platform.database.transaction(system=True) as session:
            return "end-of-call-report:call-lost" in session.scalars(select(Delivery.event_key)).all()

    eventually(filled)
