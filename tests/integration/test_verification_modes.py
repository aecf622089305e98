"""A number that moves with a wrong secret: taken and told in shadow, kept and taken once in quarantine."""

from __future__ import annotations

import json
import secrets

from sqlalchemy import text

from app.integrations.events import WebhookRequest
from app.services import quarantine, readiness


def integration_of(cli, business, provider="vapi"):
    return next(one for one in cli.data("integration", "list", "--org", business.id) if one["provider"] == provider)


def ended(number: int) -> dict:
    return {"type": "status-update", "status": "ended", "call": {"id": f"call-{number}"}}


def deliveries(cli, business) -> list[dict]:
    return [row for row in cli.data("deliveries", "list", "--org", business.id) if row["provider"] != "voicedesk"]


def test_in_shadow_a_wrong_secret_loses_nothing_and_each_mismatch_is_shown(platform, people, client, cli, settle):
    salon = people.salon
    made = integration_of(cli, salon)
    cli.data("integration", "set-verification", made["id"], "shadow")
    for number in range(3):
        assert salon.vapi(client, ended(number), secret="not-the-secret").status_code == 200
    assert salon.vapi(client, ended(9)).status_code == 200
    listed = integration_of(cli, salon)
    assert (listed["verification"], listed["would_refuse"]) == ("shadow", {"signature_invalid": 3})
    notes = sorted(row["note"] or "" for row in deliveries(cli, salon))
    assert notes == ["", *["enforce would refuse it: signature_invalid"] * 3]
    settle(lambda: len(cli.data("calls", "list", "--org", salon.id)) == 4)

    cli.data("integration", "set-verification", made["id"], "enforce")
    assert salon.vapi(client, ended(10), secret="not-the-secret").status_code == 403
    assert integration_of(cli, salon)["would_refuse"] == {}


def test_in_shadow_a_caller_is_answered_and_texts_of_a_wrong_account_are_taken(people, client, cli):
    salon = people.salon
    cli.data("integration", "set-verification", integration_of(cli, salon)["id"], "shadow")
    answer = salon.vapi(client, {"type": "assistant-request", "call": {"id": "c"}}, secret="wrong")
    assert answer.get_json()["assistantId"]
    twilio = integration_of(cli, salon, "twilio")
    cli.data("integration", "set-verification", twilio["id"], "shadow")
    wrong = {"account_sid": "AC" + "9" * 32, "auth_token": secrets.token_hex(16)}
    cli.data("integration", "set", twilio["id"], *(word for k, v in wrong.items() for word in ("--set", f"{k}={v}")))
    assert salon.text(client, "+4915112345678", "hello").status_code == 200
    assert integration_of(cli, salon, "twilio")["would_refuse"] == {"signature_invalid": 1}


def test_readiness_says_that_an_integration_does_not_enforce(platform, people, client, cli):
    check = next(one for one in readiness.CHECKS if one.name == "Webhook Verification")
    assert check.run(platform).status == "PASS"
    cli.data("integration", "set-verification", integration_of(cli, people.salon)["id"], "shadow")
    people.salon.vapi(client, ended(1), secret="wrong")
    found = check.run(platform)
    assert found.status == "WARN"
    assert "1 in shadow" in found.reason
    assert "1 request" in found.reason


def test_what_is_in_quarantine_is_refused_and_delivered_once_when_the_secret_is_mended(
    platform, people, client, cli, settle
):
    salon = people.salon
    made = integration_of(cli, salon)
    cli.data("integration", "set-verification", made["id"], "quarantine")
    new = secrets.token_hex(12)
    for number in range(4):
        assert salon.vapi(client, ended(number), secret=new).status_code == 403
    assert salon.vapi(client, ended(99), secret="somebody-else").status_code == 403
    assert deliveries(cli, salon) == []
    assert integration_of(cli, salon)["quarantined"] == 5
    assert cli.data("integration", "replay-quarantine", made["id"])["still_refused"] == 5

    cli.data("integration", "set", made["id"], "--set", f"webhook_secret={new}")
    assert salon.vapi(client, ended(0), secret=new).status_code == 200
    done = cli.data("integration", "replay-quarantine", made["id"])
    assert (done["delivered"], done["duplicates"], done["still_refused"]) == (3, 1, 1)
    again = cli.data("integration", "replay-quarantine", made["id"])
    assert (again["delivered"], again["still_refused"]) == (0, 1)
    settle(lambda: len(cli.data("calls", "list", "--org", salon.id)) == 4)
    assert len(deliveries(cli, salon)) == 4


def test_a_signature_with_a_time_is_verified_as_of_when_it_came(platform, people, client, cli):
    import hashlib
    import hmac
    import time

    salon, made = people.salon, integration_of(cli, people.salon)
    cli.data("integration", "set", made["id"], "--set", "hmac_secret=first-key")
    cli.data("integration", "set-verification", made["id"], "quarantine")
    body, stamp = json.dumps({"message": ended(1)}).encode(), str(int(time.time()))
    signature = hmac.new(b"second-key", stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    headers = {"X-Signature": signature, "X-Timestamp": stamp}
    path = f"/webhooks/vapi/{salon.vapi_token}"
    assert client.post(path, data=body, content_type="application/json", headers=headers).status_code == 403
    cli.data("integration", "set", made["id"], "--set", "hmac_secret=second-key")
    with platform.database.transaction(system=True) as session:  # as if both had happened an hour ago
        session.execute(text("UPDATE quarantined_webhooks SET received_at = received_at - interval '1 hour'"))
    assert cli.data("integration", "replay-quarantine", made["id"])["still_refused"] == 1
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE quarantined_webhooks SET received_at = received_at + interval '1 hour'"))
    assert cli.data("integration", "replay-quarantine", made["id"])["delivered"] == 1


def test_what_is_kept_is_encrypted_bounded_and_goes_after_a_week(platform, people, client, cli, monkeypatch):
    salon, made = people.salon, integration_of(cli, people.salon)
    cli.data("integration", "set-verification", made["id"], "quarantine")
    monkeypatch.setattr(quarantine, "MOST", 2)
    for number in range(3):
        salon.vapi(client, ended(number), secret="wrong-secret-of-theirs")
    assert integration_of(cli, salon)["quarantined"] == 2
    assert integration_of(cli, salon)["would_refuse"] == {"signature_invalid": 3}
    with platform.database.transaction(system=True) as session:
        sealed = session.execute(text("SELECT sealed FROM quarantined_webhooks")).scalars().all()
        assert not any(b"wrong-secret" in bytes(one) or b"call-" in bytes(one) for one in sealed)
        session.execute(text("UPDATE quarantined_webhooks SET received_at = now() - interval '8 days'"))
    salon.vapi(client, ended(7), secret="wrong-secret-of-theirs")
    assert integration_of(cli, salon)["quarantined"] == 1


def test_too_many_bytes_are_not_kept_and_refused_all_the_same(platform, people, monkeypatch, cli):
    monkeypatch.setattr(quarantine, "MOST_BYTES", 1_000)
    endpoint = platform.directory.endpoint("vapi", people.salon.vapi_token)
    from app.errors import SignatureInvalid

    kept = [
        quarantine.keep(platform, endpoint, WebhookRequest("POST", "https://v/x", {}, b"x" * 600), SignatureInvalid())
        for _ in range(2)
    ]
    assert kept == [True, False]
