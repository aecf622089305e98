"""Every front door, whichever there are: what a provider gets from the house for one line of registration."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from app.integrations.doors import DOORS
from app.observability import metrics
from tests.doors import Connected, keys_of, new_secret
from tests.integration.api import Program
from tests.prometheus import parse, total

EVERY = pytest.mark.parametrize("provider", list(DOORS))


@pytest.fixture
def connect(platform, people):
    return lambda provider, **given: Connected(platform, people.salon.id, provider, **given)


def stored(cli, door: Connected) -> list[dict]:
    return cli.data("deliveries", "list", "--org", door.org_id, "--provider", door.provider)


def refused(app: Flask, provider: str) -> float:
    counted = parse(app.test_client().get("/metrics").get_data(as_text=True))
    return total(counted, "voicedesk_webhooks_refused_total", provider=provider, code="signature_missing")


@EVERY
def test_an_event_is_stored_once_and_found_by_provider_type_and_id_by_command_and_program(
    provider, app, connect, client, cli, people
):
    door = connect(provider)
    for event in door.door.events:
        assert door.post(client, event=event).status_code == 200
    again = door.made()
    assert [door.post(client, again).status_code for _ in range(3)] == [200] * 3
    rows = stored(cli, door)
    assert len(rows) == len(door.door.events) + 1
    found = cli.data("deliveries", "list", "--event-id", rows[0]["event_id"], "--type", rows[0]["type"])
    assert [row["id"] for row in found] == [rows[0]["id"]]
    program = Program(app, people.salon.id)
    query = {"provider": provider, "event_id": rows[0]["event_id"]}
    assert [row["id"] for row in program.get("/deliveries", **query).get_json()["data"]] == [rows[0]["id"]]
    assert program.get("/deliveries", provider=provider, event_id="nobody's").get_json()["data"] == []
    other = Program(app, people.dental.id)
    assert other.get("/deliveries", **query).get_json()["data"] == []


@EVERY
def test_it_is_connected_and_tried_by_command(provider, people, cli, served):
    secret = new_secret()
    given = [word for name, value in keys_of(provider, secret).items() for word in ("--set", f"{name}={value}")]
    made = cli.data("integration", "add", people.salon.id, provider, *given)
    assert made["webhook_url"].endswith(f"/webhooks/{provider}/{made['token']}")
    url = f"{served}/webhooks/{provider}/{made['token']}"
    for event in DOORS[provider].events:
        assert cli.data("simulate", "door", provider, event, "--url", url, "--secret", secret)["status"] == 200
    told = ("--url", url, "--secret", secret)
    assert cli.data("simulate", "door", provider, DOORS[provider].events[0], *told, "--tamper")["status"] == 403
    assert cli.refusal("simulate", "door", provider, "nonsense", *told)["code"] == "invalid_input"
    listed = cli.run("integration", "list", "--org", people.salon.id, "--json").stdout
    assert secret not in listed
    assert (
        cli.refusal("integration", "add", people.salon.id, provider, "--set", "nonsense=1")["code"] == "invalid_input"
    )
    assert cli.refusal("integration", "add", "--platform", provider, *given)["code"] == "invalid_input"


@EVERY
def test_what_is_unsigned_altered_or_of_another_is_refused_counted_and_not_kept(provider, app, connect, client, cli):
    door, before = connect(provider), refused(app, provider)
    sample = door.made()
    bare = {"Content-Type": sample.headers["Content-Type"]}
    assert door.post(client, replace(sample, headers=bare)).status_code == 401
    assert door.post(client, replace(sample, body=sample.body + b" ")).status_code == 403
    assert door.post(client, secret=new_secret()).status_code == 403
    for name in sample.headers:
        if name != "Content-Type":
            for strange in ("", "é" * 10, "\x80\xff", ",", "=", "v1," * 500):
                headers = {**sample.headers, name: strange}
                assert door.post(client, replace(sample, headers=headers)).status_code in (401, 403)
    assert door.post(client, replace(sample, headers={**sample.headers, "Content-Type": "text/x"})).status_code == 415
    assert client.post(f"/webhooks/{provider}/nobody", data=sample.body, headers=sample.headers).status_code == 404
    assert stored(cli, door) == []
    assert refused(app, provider) > before
    assert provider in metrics.PROVIDERS


@EVERY
def test_what_is_authentic_and_cannot_be_understood_is_kept_raw(provider, connect, client, cli, monkeypatch):
    door, sample = connect(provider), None
    monkeypatch.setattr("orjson.dumps", lambda *_: b"[1, 2]")
    sample = door.made()
    monkeypatch.undo()
    assert door.post(client, sample).status_code == 400
    (row,) = stored(cli, door)
    assert (row["type"], row["status"], row["error_code"]) == ("malformed", "dead", "malformed_event")


@EVERY
def test_a_secret_is_rotated_with_both_passing_and_then_only_the_new_one(provider, connect, client, cli):
    door, new = connect(provider), new_secret()
    given = [word for name, value in keys_of(provider, new).items() for word in ("--set", f"{name}={value}")]
    cli.data("integration", "rotate", door.id, *given)
    assert (door.post(client).status_code, door.post(client, secret=new).status_code) == (200, 200)
    cli.data("integration", "rotate", door.id, *given, "--overlap", 0)
    assert (door.post(client).status_code, door.post(client, secret=new).status_code) == (403, 200)


@EVERY
def test_in_shadow_it_is_taken_and_told_and_from_quarantine_it_is_delivered_once_the_secret_is_mended(
    provider, connect, client, cli
):
    door, new = connect(provider), new_secret()
    cli.data("integration", "set-verification", door.id, "shadow")
    assert door.post(client, secret=new).status_code == 200
    assert stored(cli, door)[0]["note"] == "enforce would refuse it: signature_invalid"
    cli.data("integration", "set-verification", door.id, "quarantine")
    assert door.post(client, secret=new).status_code == 403
    given = [word for name, value in keys_of(provider, new).items() for word in ("--set", f"{name}={value}")]
    cli.data("integration", "set", door.id, *given)
    assert cli.data("integration", "replay-quarantine", door.id)["delivered"] == 1
    assert len(stored(cli, door)) == 2


@EVERY
def test_an_old_signature_is_refused_where_a_time_is_signed(provider, connect, client):
    door = connect(provider)
    old = door.post(client, door.made(now=datetime.now(UTC) - timedelta(minutes=6)))
    signs_no_time = provider not in {"standard-webhooks", "stripe"}
    assert old.status_code == (200 if signs_no_time else 403)


@EVERY
def test_without_a_forward_url_an_event_is_kept_and_skipped(provider, connect, client, cli, settle):
    door = connect(provider)
    door.post(client)
    settle(lambda: stored(cli, door)[0]["status"] == "skipped")
    assert "nothing forwarded" in stored(cli, door)[0]["note"]


def test_meta_is_greeted_with_the_token_of_now_or_of_before_and_nobody_else_is(connect, client, cli):
    door = connect("whatsapp-cloud")
    greeted = door.ask(client)
    assert (greeted.status_code, greeted.text, greeted.mimetype) == (200, "1158201444", "text/plain")
    assert door.ask(client, token="guessed").status_code == 403
    assert door.ask(client, **{"hub.mode": "other"}).status_code == 401
    assert door.ask(client, **{"hub.challenge": "<b>"}).status_code == 400
    assert client.get(f"/webhooks/whatsapp-cloud/nobody?hub.verify_token={door.secret}").status_code == 404
    new = new_secret()
    cli.data("integration", "rotate", door.id, "--set", f"verify_token={new}")
    assert (door.ask(client).status_code, door.ask(client, token=new).status_code) == (200, 200)
    cli.data("integration", "rotate", door.id, "--set", f"verify_token={new}", "--overlap", 0)
    assert door.ask(client).status_code == 403
    assert connect("stripe").ask(client).status_code == 405
