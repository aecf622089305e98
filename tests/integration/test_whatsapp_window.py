"""WhatsApp outside its 24 hours: the approved template, or SMS where that is allowed, or nobody is told a lie."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from tests.bookings import ADA, on
from tests.command_line import CommandLine
from tests.integration.test_texts import plan, rows

SID = "HX" + "5e" * 16
APPROVED = "Hello from {{1}}, we expect you on {{2}}"


@pytest.fixture
def cli(app, people, world) -> CommandLine:
    """Twilio knows one approved template, and no customer has written within 24 hours."""
    salon = people.salon
    world.twilio_account(
        salon.account_sid,
        salon.auth_token,
        numbers=[salon.number, f"whatsapp:{salon.number}"],
        contents={SID: APPROVED},
    )
    world.twilio_settings(windows_open=False)
    return CommandLine(app)


def book(client, business) -> None:
    said = business.tool(
        client,
        "book_appointment",
        call_id="c",
        start=on(1, 15).isoformat(),
        name="Ada",
        phone=ADA,
        channel="whatsapp",
    )
    assert said.startswith("Booked for")


def sent(world) -> list[tuple[str, str]]:
    return [(message["to"], message["body"]) for message in world.messages()]


def test_twilio_fails_free_text_outside_the_window_and_a_template_passes(client, platform, people, world, settle, cli):
    cli.data("template", "set", people.salon.id, "text.confirmation", "--content-sid", SID)
    book(client, people.salon)
    settle(lambda: rows(platform, people.salon, "status, content_sid") == [("sent", SID)])
    settle(lambda: [message["status"] for message in world.messages()] == ["read"])
    (request,) = world.requests("twilio", "create_message")
    variables = json.loads(request["body"]["ContentVariables"])
    day = on(1, 15)
    assert variables == {"1": "North Street Salon", "2": f"{day:%A} {day.day} {day:%B} at 15:00"}
    assert "Body" not in request["body"]
    ((to, body),) = sent(world)
    assert (to, body) == (f"whatsapp:{ADA}", f"Hello from North Street Salon, we expect you on {variables['2']}")


def test_within_24_hours_of_the_customers_own_text_it_goes_as_it_is(client, platform, people, world, settle, cli):
    cli.data("template", "set", people.salon.id, "text.confirmation", "--content-sid", SID)
    world.twilio_recipient(f"whatsapp:{ADA}", window_open=True)
    people.salon.text(client, f"whatsapp:{ADA}", "hello")
    settle(lambda: inbound(platform, people.salon))
    book(client, people.salon)
    settle(lambda: rows(platform, people.salon, "status, content_sid") == [("sent", None)])
    assert "is confirmed for" in sent(world)[0][1]
    with platform.database.transaction(people.salon.id) as session:
        session.execute(text("UPDATE messages SET created_at = created_at - interval '24 hours'"))
    plan(platform, people.salon, "free text", channel="whatsapp", key="later")
    settle(lambda: rows(platform, people.salon, "channel, status")[-2:] == [("whatsapp", "failed"), ("sms", "sent")])


def test_without_a_template_sms_carries_it_and_twilio_is_not_asked_in_vain(
    client, platform, people, world, settle, cli
):
    book(client, people.salon)
    expected = [("whatsapp", "failed", "63016"), ("sms", "sent", None)]
    settle(lambda: rows(platform, people.salon, "channel, status, error_code") == expected)
    assert [to for to, _ in sent(world)] == [ADA]


def test_where_sms_is_not_allowed_the_text_fails_openly(client, platform, people, world, settle, cli):
    cli.data("org", "set", people.salon.id, "--no-sms-instead")
    book(client, people.salon)
    settle(lambda: rows(platform, people.salon, "channel, status, error_code") == [("whatsapp", "failed", "63016")])
    assert sent(world) == []
    with platform.database.transaction(people.salon.id) as session:
        dead = session.execute(
            text("SELECT status, error_code FROM webhook_delivery_log WHERE type = 'message.send'")
        ).one()
    assert tuple(dead) == ("dead", "window_closed")


def test_a_template_with_other_variables_is_refused_by_twilio_and_sms_carries_the_text(
    client, platform, people, world, settle, cli
):
    cli.data("template", "set", people.salon.id, "text.confirmation", "--content-sid", SID, "--variables", "when")
    book(client, people.salon)
    expected = [("whatsapp", "failed", "63028"), ("sms", "sent", None)]
    settle(lambda: rows(platform, people.salon, "channel, status, error_code") == expected)


def test_a_template_that_twilio_took_without_saying_so_is_found_though_its_body_is_another(
    client, platform, people, world, settle, cli
):
    cli.data("template", "set", people.salon.id, "text.confirmation", "--content-sid", SID)
    world.twilio_settings(callback_delay=3600)
    world.fault("twilio", "error_500_after", operation="create_message", times=1)
    book(client, people.salon)
    settle(lambda: rows(platform, people.salon) == ["sent"], seconds=30)
    assert len(world.messages()) == 1


def inbound(platform, business) -> int:
    with platform.database.transaction(business.id) as session:
        return session.scalar(text("SELECT count(*) FROM messages WHERE direction = 'inbound'"))
