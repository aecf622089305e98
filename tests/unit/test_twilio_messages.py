"""Sending texts, through Twilio's own library, to its stand-in: what goes well and what Twilio refuses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from app.errors import (
    CredentialsRefused,
    InvalidInput,
    ProviderRefused,
    ProviderThrottled,
    RecipientOptedOut,
    ResourceGone,
)
from app.integrations.breaker import circuits
from app.integrations.twilio import TwilioCredentials, TwilioMessages
from app.redis import RedisLink
from sandbox.standins import RemoteWorld
from tests.twilio_senders import (
    ACCOUNT,
    CREDENTIALS,
    CUSTOMER,
    KEY_SECRET,
    KEY_SID,
    NUMBER,
    SERVICE,
    WHATSAPP_NUMBER,
    open_account,
    send_text,
)


@pytest.fixture(autouse=True)
def _own_circuits() -> Iterator[None]:
    circuits.connect(RedisLink(None), open_seconds=30)
    yield
    circuits.close()


@pytest.fixture
def twilio(world: RemoteWorld) -> TwilioMessages:
    """Twilio's stand-in with one account."""
    return open_account(world)


def _with(**changes: object) -> TwilioCredentials:
    return CREDENTIALS.model_copy(update=changes)


# --- what goes well ---------------------------------------------------------------------------


def test_an_sms_is_sent_once_with_its_callback_and_its_sid_comes_back(
    twilio: TwilioMessages, world: RemoteWorld
) -> None:
    callback = "http://127.0.0.1:9/status?m=1"
    sent = send_text(twilio, status_callback=callback)
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
    sent = send_text(twilio, channel="whatsapp", to=to)
    (request,) = world.requests("twilio", "create_message")
    assert (request["body"]["To"], request["body"]["From"]) == (f"whatsapp:{CUSTOMER}", f"whatsapp:{WHATSAPP_NUMBER}")
    assert (sent.to, sent.sender) == (CUSTOMER, WHATSAPP_NUMBER)


def test_a_messaging_service_chooses_the_sender_later(twilio: TwilioMessages) -> None:
    sent = send_text(twilio, credentials=_with(messaging_service_sid=SERVICE))
    assert (sent.status, sent.sender) == ("accepted", None)


def test_an_api_key_is_used_when_there_is_one(twilio: TwilioMessages) -> None:
    key = TwilioCredentials(
        account_sid=ACCOUNT, auth_token="wrong", from_number=NUMBER, api_key_sid=KEY_SID, api_key_secret=KEY_SECRET
    )
    assert send_text(twilio, credentials=key).status == "queued"


def test_without_a_sender_nothing_is_asked_of_twilio(twilio: TwilioMessages, world: RemoteWorld) -> None:
    for channel, key in (("sms", "from_number"), ("whatsapp", "whatsapp_from")):
        with pytest.raises(InvalidInput, match=key):
            send_text(twilio, credentials=_with(from_number=None, whatsapp_from=None), channel=channel)
    assert world.requests("twilio") == []


def test_what_was_sent_can_be_found_by_recipient_the_newest_first(twilio: TwilioMessages) -> None:
    since = datetime.now(UTC)
    first, second = send_text(twilio, body="one"), send_text(twilio, body="two")
    send_text(twilio, to="+12025550144")
    send_text(twilio, channel="whatsapp", body="by WhatsApp")
    found = twilio.list_sent(CREDENTIALS, to=CUSTOMER, channel="sms", since=since)
    assert [message.sid for message in found] == [second.sid, first.sid]
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert twilio.list_sent(CREDENTIALS, to=CUSTOMER, channel="sms", since=later) == []
    (found_there,) = twilio.list_sent(CREDENTIALS, to=CUSTOMER, channel="whatsapp", since=since)
    assert found_there.body == "by WhatsApp"


def test_a_text_without_a_sender_yet_is_found_all_the_same(twilio: TwilioMessages) -> None:
    since = datetime.now(UTC)
    sent = send_text(twilio, credentials=_with(messaging_service_sid=SERVICE))
    (found,) = twilio.list_sent(CREDENTIALS, to=CUSTOMER, channel="sms", since=since)
    assert found.sid == sent.sid


def test_one_text_can_be_fetched_and_one_that_is_not_there_is_gone(twilio: TwilioMessages) -> None:
    sent = send_text(twilio)
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
        send_text(twilio)
    assert refusal.value.provider_code == str(code)
    assert CUSTOMER not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_a_recipient_who_opted_out_is_told_from_other_refusals(twilio: TwilioMessages, world: RemoteWorld) -> None:
    world.opt_out(CUSTOMER)
    with pytest.raises(RecipientOptedOut) as refusal:
        send_text(twilio)
    assert refusal.value.provider_code == "21610"


def test_wrong_credentials_concern_their_account_and_open_no_circuit(
    twilio: TwilioMessages, world: RemoteWorld
) -> None:
    wrong = TwilioCredentials(account_sid=ACCOUNT, auth_token="wrong", from_number=NUMBER)
    for _ in range(5):
        with pytest.raises(CredentialsRefused):
            send_text(twilio, credentials=wrong)
    assert send_text(twilio).status == "queued"


@pytest.mark.parametrize("code", [21611, 14107, 30022])
def test_a_full_queue_is_a_reason_to_wait_not_to_give_up(twilio: TwilioMessages, world: RemoteWorld, code: int) -> None:
    world.twilio_recipient(CUSTOMER, refuse=code)
    with pytest.raises(ProviderThrottled):
        send_text(twilio)


def test_too_many_requests_say_when_to_come_back(twilio: TwilioMessages, world: RemoteWorld) -> None:
    world.fault("twilio", "throttle_429", retry_after=7)
    with pytest.raises(ProviderThrottled) as failure:
        send_text(twilio)
    assert failure.value.retry_after == timedelta(seconds=7)
