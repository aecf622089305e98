"""News of texts that come late, wrong or by another road: no second text, and none that is lost in silence."""

from __future__ import annotations

import secrets

import pytest
from sqlalchemy import text

from app.services.drain import Drain
from tests.integration.test_texts import ADA, forward, plan, rows


def report(client, business, message_id, sid, status, **more):
    forward(client, business, {"MessageSid": sid, "MessageStatus": status, **more}, f"?m={message_id}")


def inbound(platform, business):
    with platform.database.transaction(business.id) as session:
        return session.scalar(text("SELECT count(*) FROM messages WHERE direction = 'inbound'"))


def sent_text(platform, business, settle, **options):
    message_id = plan(platform, business, **options)
    settle(lambda: rows(platform, business)[-1:] == ["sent"])
    return message_id, rows(platform, business, "provider_sid")[-1]


def test_a_whatsapp_text_outside_the_window_goes_out_by_sms_instead_once(client, platform, people, world, settle):
    people.salon.text(client, "whatsapp:" + ADA, "hello")
    settle(lambda: inbound(platform, people.salon) == 1)
    message_id, sid = sent_text(platform, people.salon, settle, channel="whatsapp")
    report(client, people.salon, message_id, sid, "failed", ErrorCode="63016")
    report(client, people.salon, message_id, sid, "undelivered", ErrorCode="63016")
    settle(
        lambda: (
            rows(platform, people.salon, "channel, status, error_code")
            == [("whatsapp", "failed", "63016"), ("sms", "sent", None)]
        )
    )
    assert [message["to"] for message in world.messages()] == ["whatsapp:" + ADA, ADA]


def test_a_whatsapp_user_without_a_number_gets_no_sms_instead(client, platform, people, settle):
    message_id = plan(platform, people.salon, channel="whatsapp", to="US.1234")
    sid = "SM" + secrets.token_hex(16)
    report(client, people.salon, message_id, sid, "failed", ErrorCode="63016")
    settle(lambda: rows(platform, people.salon) == ["failed"])
    Drain(platform, threads=1).run()
    assert rows(platform, people.salon) == ["failed"]


def test_a_text_that_was_delivered_cannot_fail_any_more(client, platform, people, settle):
    message_id, sid = sent_text(platform, people.salon, settle)
    report(client, people.salon, message_id, sid, "delivered")
    settle(lambda: rows(platform, people.salon) == ["delivered"])
    report(client, people.salon, message_id, sid, "undelivered", ErrorCode="30003")
    Drain(platform, threads=1).run()
    assert rows(platform, people.salon, "status, error_code") == [("delivered", None)]


@pytest.mark.parametrize("status", ["received", "receiving", "partially_delivered", "refused", "planned"])
def test_a_status_that_no_text_of_ours_can_have_changes_nothing(client, platform, people, settle, status):
    message_id, sid = sent_text(platform, people.salon, settle)
    report(client, people.salon, message_id, sid, status)
    Drain(platform, threads=1).run()
    assert rows(platform, people.salon) == ["sent"]
    with platform.database.transaction(system=True) as session:
        statement = text(
            "SELECT count(*) FROM webhook_delivery_log"
            " WHERE status NOT IN ('processed', 'skipped') AND type <> 'message.check'"
        )
        assert session.scalar(statement) == 0


def test_an_unknown_text_is_looked_up_also_when_nobody_could_for_a_long_time(platform, people, world, settle):
    message_id, sid = sent_text(platform, people.salon, settle)
    with platform.database.transaction(people.salon.id) as session:
        session.execute(
            text(
                "UPDATE messages SET status = 'sending', provider_sid = NULL, sending_since = created_at,"
                " lookups = 0, looked_up_at = NULL"
            )
        )
    resend(platform, people.salon, message_id)
    with platform.database.transaction(people.salon.id) as session:
        session.execute(text("UPDATE messages SET sending_since = now() - interval '20 minutes'"))
    settle(lambda: rows(platform, people.salon, "provider_sid") == [sid])
    assert len(world.messages()) == 1


def test_an_unknown_text_is_found_though_twilio_made_its_letters_plain(platform, people, world, settle):
    message_id, sid = sent_text(platform, people.salon, settle, body='Soon - it\'s "caf\u00e9"... 3 PM')
    with platform.database.transaction(people.salon.id) as session:
        session.execute(
            text(
                "UPDATE messages SET status = 'sending', provider_sid = NULL, sending_since = created_at, body = :body"
            ),
            {"body": "Soon \u2014 it\u2019s \u00abcaf\u00e9\u00bb\u2026 3\u00a0PM"},
        )
    resend(platform, people.salon, message_id)
    settle(lambda: rows(platform, people.salon, "provider_sid") == [sid])
    assert len(world.messages()) == 1


def test_news_of_an_unknown_text_takes_its_error_away(client, platform, people, settle):
    message_id, sid = sent_text(platform, people.salon, settle)
    with platform.database.transaction(people.salon.id) as session:
        session.execute(
            text("UPDATE messages SET status = 'unknown', error_code = 'unknown', error = 'cannot be told'")
        )
    report(client, people.salon, message_id, sid, "delivered")
    settle(lambda: rows(platform, people.salon, "status, error_code, error") == [("delivered", None, None)])
    assert rows(platform, people.salon, "provider_sid") == [sid]


def resend(platform, business, message_id):
    """Plan the same text's sending again, as a replay does."""
    from app.services import own_work
    from app.services.own_work import OwnWork

    with platform.database.transaction(business.id) as session:
        payload = {"message_id": str(message_id)}
        own_work.plan(session, business.id, OwnWork.SEND_MESSAGE, lane_key=secrets.token_hex(4), payload=payload)
