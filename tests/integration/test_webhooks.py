"""The providers' door: what is signed gets in and is stored once, what is not gets a clear refusal."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest
from sqlalchemy import text
from twilio.request_validator import RequestValidator

from app.models import Integration
from app.services.credentials import parse_credentials
from app.services.drain import Drain

SMS = {"From": "+4915112345678", "To": "+4930111110001", "Body": "Hällo & more", "NumMedia": "0", "ToCity": ""}


def deliveries(platform, columns="provider, type, status"):
    with platform.database.transaction(system=True) as session:
        return [tuple(row) for row in session.execute(text(f"SELECT {columns} FROM webhook_delivery_log ORDER BY id"))]


def hmac_endpoint(platform, business, **settings) -> tuple[str, str]:
    secret, token = secrets.token_hex(16), secrets.token_urlsafe(12)
    credentials = parse_credentials("vapi", {"webhook_secret": secret, **settings})
    with platform.database.transaction(system=True) as session:
        session.add(
            Integration(org_id=business.id, provider="vapi", token=token, credentials=platform.vault.seal(credentials))
        )
    return token, secret


def post_hmac(client, token, secret, body: bytes, *, at: float | None = None, altered: bytes | None = None):
    stamp = str(int(at if at is not None else time.time()))
    signature = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return client.post(
        f"/webhooks/vapi/{token}",
        data=altered if altered is not None else body,
        content_type="application/json",
        headers={"x-signature": signature, "x-timestamp": stamp},
    )


def is_problem(answer, status: int, code: str) -> bool:
    return (
        answer.status_code == status
        and answer.content_type == "application/problem+json"
        and answer.get_json()["code"] == code
        and answer.get_json()["status"] == status
    )


def test_the_same_event_sent_five_times_at_once_is_stored_and_processed_once(app, platform, people):
    message = {"type": "status-update", "status": "in-progress", "call": {"id": "c1"}}
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: people.salon.vapi(app.test_client(), message).status_code, range(5)))
    assert answers == [200] * 5
    Drain(platform, threads=2).run()
    assert deliveries(platform) == [("vapi", "status-update", "processed")]


def test_a_call_is_put_together_from_events_in_any_order(client, platform, people):
    call = {"id": "c1", "type": "inboundPhoneCall", "status": "queued"}
    report = {
        "type": "end-of-call-report",
        "call": call,
        "endedReason": "customer-ended-call",
        "transcript": "User: hello",
        "analysis": {"summary": "said hello"},
        "artifact": {},
        "cost": 0.07,
    }
    people.salon.vapi(client, report)
    people.salon.vapi(client, {"type": "status-update", "status": "in-progress", "call": call})
    Drain(platform, threads=2).run()
    with platform.database.transaction(people.salon.id) as session:
        row = session.execute(text("SELECT status, transcript, summary, cost, ended_reason FROM calls")).one()
    assert tuple(row)[:3] == ("ended", "User: hello", "said hello")
    assert float(row.cost) == 0.07


@pytest.mark.parametrize("kind", ["hang", "speech-update", "model-output", "something.new"])
def test_types_without_a_handler_are_stored_and_skipped(client, platform, people, kind):
    assert people.salon.vapi(client, {"type": kind, "call": {"id": "c"}, "timestamp": 1}).status_code == 200
    Drain(platform, threads=1).run()
    assert deliveries(platform) == [("vapi", kind, "skipped")]


def test_secrets_in_a_body_are_never_stored(client, platform, people):
    body = {"type": "hang", "call": {"id": "c"}, "phoneNumber": {"twilioAuthToken": "s3cr3t", "number": "+49"}}
    people.salon.vapi(client, body)
    with platform.database.transaction(system=True) as session:
        (stored,) = session.execute(text("SELECT body::text FROM webhook_payloads")).scalars()
    assert "s3cr3t" not in stored
    assert "+49" in stored


def test_vapi_takes_its_secret_as_a_bearer_token_too(client, people):
    answer = client.post(
        f"/webhooks/vapi/{people.salon.vapi_token}",
        data=json.dumps({"message": {"type": "hang", "call": {"id": "c"}}}),
        content_type="application/json",
        headers={"Authorization": f"Bearer {people.salon.vapi_secret}"},
    )
    assert answer.status_code == 200


def test_vapi_hmac_is_accepted_and_one_altered_byte_or_an_old_time_is_refused(client, platform, people):
    token, secret = hmac_endpoint(platform, people.salon, hmac_algorithm="sha256")
    body = b'{"message":{"type":"hang","call":{"id":"c"}}}'
    assert post_hmac(client, token, secret, body).status_code == 200
    assert is_problem(post_hmac(client, token, secret, body, altered=body[:-1] + b" "), 403, "signature_invalid")
    assert is_problem(post_hmac(client, token, secret, body, at=time.time() - 301), 403, "signature_invalid")
    plain = client.post(
        f"/webhooks/vapi/{token}", data=body, content_type="application/json", headers={"X-Vapi-Secret": secret}
    )
    assert plain.status_code in (401, 403)


@pytest.mark.parametrize("value", ["wrong", "", "é", "a" * 5000])
def test_a_wrong_vapi_secret_is_refused(client, platform, people, value):
    answer = people.salon.vapi(client, {"type": "hang"}, secret=value)
    assert answer.status_code in (401, 403)
    assert answer.content_type == "application/problem+json"
    assert deliveries(platform) == []


def test_a_missing_secret_an_unknown_token_a_wrong_type_and_too_much_are_each_named(client, people):
    url = f"/webhooks/vapi/{people.salon.vapi_token}"
    secret = {"X-Vapi-Secret": people.salon.vapi_secret}
    assert is_problem(client.post(url, data="{}", content_type="application/json"), 401, "signature_missing")
    assert is_problem(client.post("/webhooks/vapi/nobody", data="{}"), 404, "unknown_endpoint")
    assert is_problem(client.post(url, data="a=1", headers=secret), 415, "unsupported_content_type")
    large = client.post(url, data=b" " * 5_000_001, content_type="application/json", headers=secret)
    assert large.status_code == 413
    assert large.content_type == "application/problem+json"
    asked = client.get(url)
    assert (asked.status_code, set(asked.headers["Allow"].split(", "))) == (405, {"POST", "OPTIONS"})


def test_what_verifies_and_cannot_be_parsed_is_400_and_kept_raw_as_dead(client, platform, people):
    answer = client.post(
        f"/webhooks/vapi/{people.salon.vapi_token}",
        data=b"{not json",
        content_type="application/json",
        headers={"X-Vapi-Secret": people.salon.vapi_secret},
    )
    assert is_problem(answer, 400, "malformed_event")
    assert deliveries(platform, "status, error_code") == [("dead", "malformed_event")]
    with platform.database.transaction(system=True) as session:
        assert bytes(session.execute(text("SELECT raw FROM webhook_payloads")).scalar_one()) == b"{not json"


def test_a_nul_in_a_body_is_no_reason_to_lose_the_event(client, platform, people):
    answer = people.salon.vapi(client, {"type": "transcript", "call": {"id": "c"}, "transcript": "a\x00b"})
    assert answer.status_code == 200
    assert len(deliveries(platform)) == 1


def test_a_text_signed_by_twilios_library_is_stored_and_answered_with_empty_twiml(client, platform, people):
    answer = people.salon.text(client, "+4915112345678", "Hällo & more")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/xml")
    assert answer.data == b'<?xml version="1.0" encoding="UTF-8"?><Response/>'
    assert deliveries(platform) == [("twilio", "message.inbound", "received")]


def test_repeated_blank_and_escaped_parameters_are_part_of_the_signature(client, platform, people):
    salon = people.salon
    target = f"/webhooks/twilio/{salon.twilio_token}?who=Jos%C3%A9%3A1"
    pairs = [
        ("MessageSid", "SM" + "0" * 32),
        ("AccountSid", salon.account_sid),
        ("From", "+4915112345678"),
        ("To", salon.number),
        ("Body", " spaced "),
        ("Extra", "b"),
        ("Extra", "a"),
        ("ToZip", ""),
    ]
    signed = "https://voicedesk.test" + target + "".join(k + v for k, v in sorted(pairs))
    signature = base64.b64encode(hmac.new(salon.auth_token.encode(), signed.encode(), hashlib.sha1).digest()).decode()
    answer = client.post(
        target,
        data=urlencode(pairs),
        content_type="application/x-www-form-urlencoded",
        headers={"X-Twilio-Signature": signature},
    )
    assert answer.status_code == 200
    assert len(deliveries(platform)) == 1


@pytest.mark.parametrize("signature", [None, "", "wrong", "é", "AAAA=="])
def test_a_text_without_a_right_signature_is_refused_and_never_a_500(client, platform, people, signature):
    headers = {} if signature is None else {"X-Twilio-Signature": signature}
    answer = client.post(
        f"/webhooks/twilio/{people.salon.twilio_token}",
        data=urlencode({"MessageSid": "SM1", "AccountSid": people.salon.account_sid, **SMS}),
        content_type="application/x-www-form-urlencoded",
        headers=headers,
    )
    assert answer.status_code in (401, 403)
    assert answer.content_type == "application/problem+json"
    assert deliveries(platform) == []


def test_one_altered_byte_of_a_text_is_refused(client, people):
    params = {"MessageSid": "SM1", "AccountSid": people.salon.account_sid, **SMS}
    target = f"/webhooks/twilio/{people.salon.twilio_token}"
    signature = RequestValidator(people.salon.auth_token).compute_signature("https://voicedesk.test" + target, params)
    answer = client.post(
        target,
        data=urlencode({**params, "Body": "Hällo & morf"}),
        content_type="application/x-www-form-urlencoded",
        headers={"X-Twilio-Signature": signature},
    )
    assert answer.status_code == 403


def test_the_token_of_another_organization_does_not_accept_this_ones_signature(client, platform, people):
    params = {"MessageSid": "SM1", "AccountSid": people.salon.account_sid, **SMS}
    target = f"/webhooks/twilio/{people.dental.twilio_token}"
    signature = RequestValidator(people.salon.auth_token).compute_signature("https://voicedesk.test" + target, params)
    answer = client.post(
        target,
        data=urlencode(params),
        content_type="application/x-www-form-urlencoded",
        headers={"X-Twilio-Signature": signature},
    )
    assert answer.status_code == 403


def google(client, business, **headers):
    return client.post(
        f"/webhooks/google-calendar/{business.google_token}",
        data=b"",
        headers={
            "X-Goog-Channel-ID": "channel-1",
            "X-Goog-Resource-ID": "resource-1",
            "X-Goog-Resource-State": "exists",
            "X-Goog-Message-Number": "10",
            "X-Goog-Channel-Token": business.channel_token,
            "X-Goog-Channel-Expiration": "Tue, 22 Sep 2037 09:51:46 GMT",
            **headers,
        },
    )


def test_googles_handshake_and_its_changes_are_recorded_as_go_and_sync(client, platform, people):
    headers = {"X-Goog-Resource-State": "sync", "X-Goog-Message-Number": "1"}
    assert google(client, people.salon, **headers).status_code == 204
    assert google(client, people.salon).status_code == 204
    assert google(client, people.salon).status_code == 204
    Drain(platform, threads=1).run()
    assert deliveries(platform) == [
        ("google-calendar", "calendar.sync", "processed"),
        ("google-calendar", "calendar.changed", "processed"),
        ("voicedesk", "calendar.sync", "processed"),
    ]
    with platform.database.transaction(people.salon.id) as session:
        row = session.execute(text("SELECT resource_id, heard_at IS NOT NULL FROM calendar_channels")).one()
    assert tuple(row) == ("resource-1", True)


def test_a_known_channel_that_speaks_of_another_resource_changes_nothing(client, platform, people):
    google(client, people.salon)
    google(client, people.salon, **{"X-Goog-Resource-ID": "other", "X-Goog-Message-Number": "11"})
    Drain(platform, threads=1).run()
    assert [row[2] for row in deliveries(platform) if row[0] == "google-calendar"] == ["processed", "skipped"]


def test_a_wrong_or_missing_channel_token_is_refused(client, platform, people):
    assert google(client, people.salon, **{"X-Goog-Channel-Token": "wrong"}).status_code in (401, 403)
    assert google(client, people.salon, **{"X-Goog-Channel-Token": ""}).status_code in (401, 403)
    assert deliveries(platform) == []


def test_an_assistant_request_is_answered_with_the_organizations_assistant(client, platform, people):
    answer = people.salon.vapi(client, {"type": "assistant-request", "call": {"id": "c"}})
    assert answer.get_json()["assistantId"].startswith("asst-")
    assert deliveries(platform) == [("vapi", "assistant-request", "processed")]


def test_a_transfer_request_is_answered_with_the_number_to_transfer_to(client, people):
    answer = people.salon.vapi(client, {"type": "transfer-destination-request", "call": {"id": "c"}})
    assert answer.get_json()["destination"] == {"type": "number", "number": "+4930999990009"}


def test_with_the_database_away_a_webhook_goes_to_the_spool_and_a_known_caller_still_gets_an_assistant(
    client, platform, people, monkeypatch
):
    from app.errors import DatabaseUnavailable

    assert people.salon.vapi(client, {"type": "assistant-request", "call": {"id": "c"}}).status_code == 200

    def away(*_args, **_kwargs):
        raise DatabaseUnavailable("the database is away")

    monkeypatch.setattr(platform.database, "transaction", away)
    monkeypatch.setattr(platform.database, "intake", away)
    monkeypatch.setattr(platform.database, "intake_at_once", away)
    monkeypatch.setattr("app.services.directory.FRESH_SECONDS", 0)
    answer = people.salon.vapi(client, {"type": "hang", "call": {"id": "c"}})
    assert answer.status_code == 200
    assert platform.spool.contents().lines == 1
    answer = people.salon.vapi(client, {"type": "assistant-request", "call": {"id": "d"}})
    assert answer.get_json()["assistantId"].startswith("asst-")
