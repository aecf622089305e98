"""Old and new secrets pass side by side until the overlap is over; then only the new one, under traffic."""

from __future__ import annotations

import secrets
import threading
from urllib.parse import urlencode

from sqlalchemy import text
from twilio.request_validator import RequestValidator

from tests.eventually import eventually


def integration_of(cli, business, provider):
    return next(one for one in cli.data("integration", "list", "--org", business.id) if one["provider"] == provider)


def end_overlaps(platform):
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE integrations SET previous_until = now() WHERE previous_until IS NOT NULL"))
    platform.directory.forget()


def ended(name: str) -> dict:
    return {"type": "status-update", "status": "ended", "call": {"id": name}}


def test_under_traffic_no_request_with_either_secret_is_refused_until_the_overlap_ends(
    app, platform, people, client, cli
):
    salon, new = people.salon, secrets.token_hex(12)
    made = integration_of(cli, salon, "vapi")
    seen: list[tuple[str, int]] = []
    over, rotated = threading.Event(), threading.Event()

    def send(name: str, secret: str, begin: threading.Event | None) -> None:
        mine, number = app.test_client(), 0
        if begin is not None:
            begin.wait(20)
        while not over.is_set():
            number += 1
            seen.append((name, salon.vapi(mine, ended(f"{name}-{number}"), secret=secret).status_code))

    senders = [
        threading.Thread(target=send, args=("old", salon.vapi_secret, None)),
        threading.Thread(target=send, args=("new", new, rotated)),
    ]
    for sender in senders:
        sender.start()
    try:
        eventually(lambda: len(seen) > 10, seconds=20)
        cli.data("integration", "rotate", made["id"], "--set", f"webhook_secret={new}", "--overlap", "1")
        rotated.set()
        eventually(lambda: sum(name == "new" for name, _ in seen) > 10, seconds=20)
    finally:
        over.set()
        rotated.set()
        for sender in senders:
            sender.join(timeout=20)
    assert {status for _, status in seen} == {200}
    stored = cli.data("deliveries", "list", "--org", salon.id, "--limit", "10000")
    assert len(stored) == len(seen)

    end_overlaps(platform)
    assert salon.vapi(client, ended("late")).status_code == 403
    assert salon.vapi(client, ended("late"), secret=new).status_code == 200


def test_twilio_and_google_rotate_in_the_same_way_and_sending_uses_the_new_token_at_once(platform, people, client, cli):
    salon, new = people.salon, secrets.token_hex(16)
    cli.data("integration", "rotate", integration_of(cli, salon, "twilio")["id"], "--set", f"auth_token={new}")
    assert salon.text(client, "+4915112345678", "one").status_code == 200
    params = {"MessageSid": "SM" + secrets.token_hex(16), "AccountSid": salon.account_sid, "From": "+4915112345678"}
    params |= {"To": salon.number, "Body": "two"}
    target = f"/webhooks/twilio/{salon.twilio_token}"
    signed = RequestValidator(new).compute_signature("https://voicedesk.test" + target, params)
    form = {"data": urlencode(params), "content_type": "application/x-www-form-urlencoded"}
    assert client.post(target, **form, headers={"X-Twilio-Signature": signed}).status_code == 200
    credentials = platform.directory.integration(salon.id, "twilio").credentials
    assert credentials.auth_token.get_secret_value() == new

    google = integration_of(cli, salon, "google-calendar")
    cli.data("integration", "rotate", google["id"], "--set", "channel_token=the-new-channel-token")
    for number, token in enumerate((salon.channel_token, "the-new-channel-token"), start=1):
        headers = {
            "X-Goog-Channel-Token": token,
            "X-Goog-Channel-ID": "channel-1",
            "X-Goog-Resource-ID": "resource-1",
            "X-Goog-Resource-State": "exists",
            "X-Goog-Message-Number": str(number),
        }
        assert client.post(f"/webhooks/google-calendar/{salon.google_token}", headers=headers).status_code == 204
    end_overlaps(platform)
    assert salon.text(client, "+4915112345678", "three").status_code == 403


def test_a_second_rotation_waits_for_the_first_ones_overlap_unless_it_is_ended(platform, people, client, cli):
    salon = people.salon
    made = integration_of(cli, salon, "vapi")
    shown = cli.data("integration", "rotate", made["id"], "--set", "webhook_secret=second-secret")
    assert shown["old_secret_until"]
    refused = cli.refusal("integration", "rotate", made["id"], "--set", "webhook_secret=third-secret")
    assert "overlap" in refused["message"]
    shown = cli.data("integration", "rotate", made["id"], "--set", "webhook_secret=third-secret", "--overlap", "0")
    assert shown["old_secret_until"] is None
    assert salon.vapi(client, ended("a")).status_code == 403
    assert salon.vapi(client, ended("a"), secret="second-secret").status_code == 403
    assert salon.vapi(client, ended("a"), secret="third-secret").status_code == 200


def test_an_overlap_can_be_ended_before_its_time(platform, people, client, cli):
    salon = people.salon
    made = integration_of(cli, salon, "vapi")
    cli.data("integration", "rotate", made["id"], "--set", "webhook_secret=second-secret")
    assert salon.vapi(client, ended("a")).status_code == 200
    assert cli.data("integration", "rotate", made["id"], "--overlap", "0")["old_secret_until"] is None
    assert salon.vapi(client, ended("b")).status_code == 403
    assert salon.vapi(client, ended("b"), secret="second-secret").status_code == 200
    assert "no new secret" in cli.refusal("integration", "rotate", made["id"])["message"]
