"""What Twilio answers to a send is kept by one statement, as the rule that callbacks and look-ups go by would."""

from __future__ import annotations

import secrets
from uuid import UUID

import pytest
from sqlalchemy import text

from app.models.messages import RANK, insert_message, lock_message
from app.models.sending import keep_sent
from app.services.message_checks import check_of
from app.services.message_settling import TWILIO_SENT, apply_status
from tests.integration.test_texts import ADA

SENDER = "+4930222"


@pytest.fixture
def salon(people):
    return people.salon.id


def put(platform, salon, **given: str | None) -> UUID:
    """A text of ours as it stands when the answer comes."""
    told = {"direction": "outbound", "channel": "sms", "remote_address": ADA, "body": "hello", **given}
    with platform.database.transaction(salon) as session:
        return insert_message(session, org_id=salon, **told)


def kept(platform, salon, message_id: UUID, said: str) -> str:
    """The SID under which it was kept."""
    sid = "SM" + secrets.token_hex(16)
    check = check_of(platform, salon, message_id)
    asks = platform.database.at_once(salon)
    keep_sent(asks, salon, message_id, sid=sid, sender=SENDER, said=said, check=check)
    return sid


def applied(platform, salon, message_id: UUID, said: str) -> None:
    with platform.database.transaction(salon) as session:
        message = lock_message(session, salon, message_id)
        message.own_address = message.own_address or SENDER
        apply_status(session, message, said, None)


def standing(platform, salon, message_id: UUID) -> tuple[object, ...]:
    with platform.database.transaction(salon) as session:
        row = session.execute(
            text(
                "SELECT status, provider_status, error_code, error, own_address, updated_at > created_at AS is_updated"
                " FROM messages WHERE id = :id"
            ),
            {"id": message_id},
        ).one()
    return tuple(row)


def checks(platform, salon) -> list[str]:
    with platform.database.transaction(salon) as session:
        found = session.execute(
            text("SELECT body ->> 'message_id' FROM webhook_payloads WHERE body ? 'message_id' ORDER BY delivery_id")
        )
        return [row[0] for row in found]


@pytest.mark.parametrize("said", sorted(TWILIO_SENT))
@pytest.mark.parametrize("status", RANK)
def test_whatever_has_come_before_the_answer_it_stands_as_after_any_other_news(platform, salon, status, said):
    for before in (
        {"error_code": "30003", "error": "not there"},
        {"provider_status": "delivered", "own_address": "+4930111"},
    ):
        by_rule, by_statement = (put(platform, salon, status=status, **before) for _ in range(2))
        applied(platform, salon, by_rule, said)
        kept(platform, salon, by_statement, said)
        assert standing(platform, salon, by_statement) == standing(platform, salon, by_rule)


def test_the_first_sid_stays_and_whoever_brings_one_has_it_checked(platform, salon):
    message_id = put(platform, salon, status="sending")
    first = kept(platform, salon, message_id, "queued")
    kept(platform, salon, message_id, "queued")
    with platform.database.transaction(salon) as session:
        assert lock_message(session, salon, message_id).provider_sid == first
    assert checks(platform, salon) == [str(message_id)] * 2


def test_an_answer_on_another_organizations_text_changes_nothing_of_it(platform, salon, people):
    message_id = put(platform, salon, status="sending")
    kept(platform, people.dental.id, message_id, "queued")
    assert standing(platform, salon, message_id)[0] == "sending"
