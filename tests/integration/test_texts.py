"""Texts: sent once whatever Twilio does, refused after STOP, moved forward by callbacks in any order."""

from __future__ import annotations

import secrets

import pytest
from sqlalchemy import text

from app.services.drain import Drain
from app.services.messages import plan_text
from tests.conftest import superuser

ADA = "+4915112345678"


def plan(platform, business, body="hello", *, to=ADA, channel="sms", key=None):
    with platform.database.transaction(business.id) as session:
        return plan_text(
            session,
            business.id,
            to=to,
            body=body,
            channel=channel,
            idempotency_key=key or secrets.token_hex(4),
            purpose="t",
        )


def rows(platform, business, columns="status"):
    with platform.database.transaction(business.id) as session:
        found = session.execute(
            text(f"SELECT {columns} FROM messages WHERE direction = 'outbound' ORDER BY created_at")
        ).all()
    return [row[0] if len(row) == 1 else tuple(row) for row in found]


def forward(client, business, params, query=""):
    return business.twilio(client, {"AccountSid": business.account_sid, **params}, path="/status", query=query)


def test_a_text_goes_out_once_with_a_callback_url_that_names_its_row(platform, people, world, settle):
    message_id = plan(platform, people.salon)
    settle(lambda: rows(platform, people.salon) == ["sent"])
    (request,) = world.requests("twilio", "create_message")
    assert f"/webhooks/twilio/{people.salon.twilio_token}/status?m={message_id}" in str(request)


def test_texts_go_out_while_the_next_release_has_added_a_column(
    platform, people, world, settle, postgres, database_urls
):
    with superuser(postgres, database_urls.name) as cursor:
        cursor.execute("ALTER TABLE messages ADD COLUMN of_the_next_release text")
        try:
            plan(platform, people.salon)
            settle(lambda: rows(platform, people.salon) == ["sent"])
            assert len(world.messages()) == 1
        finally:
            cursor.execute("ALTER TABLE messages DROP COLUMN of_the_next_release")


def test_the_same_idempotency_key_is_one_text(platform, people, world, settle):
    assert plan(platform, people.salon, key="k") is not None
    assert plan(platform, people.salon, key="k") is None
    settle(lambda: rows(platform, people.salon) == ["sent"])
    assert len(world.messages()) == 1


def test_status_callbacks_out_of_order_only_move_forward(client, platform, people, settle):
    message_id = plan(platform, people.salon)
    settle(lambda: rows(platform, people.salon) == ["sent"])
    (sid,) = rows(platform, people.salon, "provider_sid")
    for status in ("delivered", "sent", "queued"):
        answer = forward(client, people.salon, {"MessageSid": sid, "MessageStatus": status}, f"?m={message_id}")
        assert answer.status_code == 200
    settle(lambda: rows(platform, people.salon) == ["delivered"])
    Drain(platform, threads=1).run()
    assert rows(platform, people.salon, "status, provider_status") == [("delivered", "delivered")]


def test_a_status_of_a_text_that_came_in_or_is_nobodys_is_skipped(client, platform, people, settle):
    sid, nobodys = "SM" + secrets.token_hex(16), "SM" + secrets.token_hex(16)
    people.salon.text(client, ADA, "hello", sid=sid)
    forward(client, people.salon, {"MessageSid": sid, "MessageStatus": "delivered"})
    forward(client, people.salon, {"MessageSid": nobodys, "MessageStatus": "delivered"})

    def notes():
        with platform.database.transaction(system=True) as session:
            statement = "SELECT note FROM webhook_delivery_log WHERE type = 'message.status' ORDER BY id"
            return session.execute(text(statement)).scalars().all()

    settle(lambda: None not in notes())
    assert notes() == ["the SID is of a text that came in", "no text of ours has this SID"]


def test_a_text_whose_callbacks_never_came_is_asked_about(platform, people, world, settle):
    plan(platform, people.salon)
    settle(lambda: rows(platform, people.salon) == ["sent"])
    settle(lambda: [message["status"] for message in world.messages()] == ["delivered"])
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE webhook_delivery_log SET next_attempt_at = now() WHERE type = 'message.check'"))
        session.execute(text("UPDATE lanes SET due_at = now()"))
    settle(lambda: rows(platform, people.salon) == ["delivered"])
    assert len(world.requests("twilio", "create_message")) == 1


def test_a_callback_that_comes_before_the_send_has_committed_settles_it(client, platform, people, world, settle):
    message_id = plan(platform, people.salon)
    with platform.database.transaction(people.salon.id) as session:
        session.execute(text("UPDATE messages SET status = 'sending', sending_since = now(), sends = 1"))
    sid = "SM" + secrets.token_hex(16)
    forward(client, people.salon, {"MessageSid": sid, "MessageStatus": "sent"}, f"?m={message_id}")
    settle(lambda: rows(platform, people.salon, "status, provider_sid") == [("sent", sid)])
    assert world.messages() == []


@pytest.mark.parametrize("fault", ["cut_after", "error_500_after", "hang"])
def test_a_text_that_twilio_took_without_saying_so_is_found_and_not_sent_again(
    platform, people, world, settle, fault, monkeypatch
):
    monkeypatch.setattr("app.services.messages.SEND_TIMEOUT_SECONDS", 1.0)
    world.twilio_settings(callback_delay=3600)
    world.fault("twilio", fault, operation="create_message", times=1)
    plan(platform, people.salon)
    settle(lambda: rows(platform, people.salon) == ["sent"], seconds=30)
    assert len(world.messages()) == 1


def test_a_text_that_twilio_certainly_never_took_is_sent_again_after_two_look_ups(platform, people, world, settle):
    world.fault("twilio", "cut_before", operation="create_message", times=1)
    plan(platform, people.salon)
    settle(lambda: rows(platform, people.salon) == ["sent"], seconds=30)
    assert len(world.messages()) == 1
    assert len(world.requests("twilio", "list_messages")) >= 2


def test_of_two_equal_texts_one_unknown_is_never_matched_with_the_others_sid(platform, people, world, settle):
    plan(platform, people.salon, "Reply C to cancel")
    settle(lambda: rows(platform, people.salon) == ["sent"])
    world.fault("twilio", "cut_before", operation="create_message", times=1)
    plan(platform, people.salon, "Reply C to cancel")
    settle(lambda: rows(platform, people.salon) == ["sent", "sent"], seconds=30)
    assert len(world.messages()) == 2
    assert len(set(rows(platform, people.salon, "provider_sid"))) == 2


def test_a_429_is_retried_after_the_time_twilio_asks_for(platform, people, world, settle):
    world.fault("twilio", "throttle_429", operation="create_message", times=1, retry_after=1)
    plan(platform, people.salon)
    settle(lambda: rows(platform, people.salon) == ["sent"])
    assert len(world.messages()) == 1


def test_a_number_twilio_refuses_is_failed_at_once_with_its_code(platform, people, world, settle):
    world.twilio_recipient(ADA, refuse=21211)
    plan(platform, people.salon)
    settle(lambda: rows(platform, people.salon, "status, error_code") == [("failed", "21211")])
    assert len(world.requests("twilio", "create_message")) == 1


def test_a_recipient_twilio_knows_as_opted_out_is_suppressed_from_then_on(platform, people, world, settle):
    world.opt_out(ADA)
    plan(platform, people.salon)
    settle(lambda: rows(platform, people.salon) == ["refused"])
    plan(platform, people.salon)
    assert rows(platform, people.salon, "status, error_code")[1] == ("refused", "opted_out")
    assert len(world.requests("twilio", "create_message")) == 1


@pytest.mark.parametrize("sender", [ADA, "whatsapp:" + ADA])
def test_after_stop_every_later_send_is_refused_with_the_reason_and_start_lifts_it(
    client, platform, people, world, settle, sender
):
    assert people.salon.text(client, sender, "STOP").status_code == 200
    for channel in ("sms", "whatsapp"):
        plan(platform, people.salon, channel=channel)
    assert rows(platform, people.salon, "status, error") == [("refused", "the recipient has opted out")] * 2
    plan(platform, people.dental)
    settle(lambda: rows(platform, people.dental) == ["sent"])
    assert people.salon.text(client, sender, "start").status_code == 200
    plan(platform, people.salon, "again")
    settle(lambda: rows(platform, people.salon) == ["refused", "refused", "sent"])


def test_a_stop_between_planning_and_sending_is_honoured(client, platform, people, world, settle):
    plan(platform, people.salon)
    people.salon.text(client, ADA, "Stop")
    settle(lambda: rows(platform, people.salon) == ["refused"])
    assert world.messages() == []


def test_a_late_duplicate_of_stop_does_not_undo_a_start(client, platform, people, world, settle):
    sid = "SM" + secrets.token_hex(16)
    people.salon.text(client, ADA, "STOP", sid=sid)
    people.salon.text(client, ADA, "START")
    people.salon.text(client, ADA, "STOP", sid=sid)
    plan(platform, people.salon)
    settle(lambda: rows(platform, people.salon) == ["sent"])
    assert len(world.messages()) == 1


def test_a_whatsapp_sender_without_a_phone_number_is_stored_under_its_user_id(client, platform, people, settle):
    people.salon.text(client, "whatsapp:US.1234", "hello")

    def stored():
        with platform.database.transaction(people.salon.id) as session:
            return session.execute(text("SELECT channel, remote_address FROM messages")).all()

    settle(lambda: stored())
    assert [tuple(row) for row in stored()] == [("whatsapp", "US.1234")]


def test_the_send_text_tool_sends_and_after_stop_says_that_it_cannot(client, platform, people, world, settle):
    said = people.salon.tool(client, "send_text", call_id="c", phone=ADA, text="Our address is North Street 1")
    assert said == "The text is on its way."
    settle(lambda: rows(platform, people.salon) == ["sent"])
    people.salon.text(client, ADA, "STOP")
    said = people.salon.tool(client, "send_text", call_id="c", phone=ADA, text="again")
    assert "opted out" in said
