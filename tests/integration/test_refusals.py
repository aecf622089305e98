"""Failed verifications: many of them cost little, and none of them costs a valid signature anything."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import event as database_event

from app import create_app
from app.models import Integration
from app.services import refusals
from app.services.credentials import parse_credentials
from app.services.refusals import Refusals

MESSAGE = {"type": "status-update", "status": "ringing", "call": {"id": "c1"}}


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"webhook_failures_per_minute": 3})


def lines(capsys) -> list[dict]:
    said = capsys.readouterr().err.splitlines()
    return [line for line in map(json.loads, filter(None, said)) if line["event"] == "webhook.refused"]


def ask(client, token: str, secret: str = "wrong", *, address: str = "198.51.100.7"):
    return client.post(
        f"/webhooks/vapi/{token}",
        json={"message": MESSAGE},
        headers={"X-Vapi-Secret": secret},
        environ_base={"REMOTE_ADDR": address},
    )


def statements(platform) -> list[str]:
    seen: list[str] = []
    database_event.listen(platform.database.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    return seen


def test_beyond_the_limit_refusals_are_not_told_one_by_one(client, people, capsys):
    capsys.readouterr()
    answers = [ask(client, people.salon.vapi_token).status_code for _ in range(20)]
    assert answers == [403] * 20
    assert len(lines(capsys)) == 4


def test_another_address_or_another_token_is_told_all_the_same(client, people, capsys):
    for _ in range(20):
        ask(client, people.salon.vapi_token)
    capsys.readouterr()
    ask(client, people.salon.vapi_token, address="198.51.100.8")
    ask(client, people.dental.vapi_token)
    assert len(lines(capsys)) == 2


def test_those_kept_back_are_told_as_a_number_when_the_minute_is_over(monkeypatch):
    monkeypatch.setattr(refusals, "MINUTE", 0.2)
    count = Refusals(2)
    assert [count.note("a", "t", is_unknown=False) for _ in range(6)] == [1, 1, 1, 0, 0, 0]
    later = refusals.time.monotonic() + 0.25
    monkeypatch.setattr(refusals.time, "monotonic", lambda: later)
    assert count.note("a", "t", is_unknown=False) == 4


def test_a_valid_signature_is_accepted_at_once_whatever_else_came_from_its_address(client, platform, people):
    for _ in range(50):
        assert ask(client, people.salon.vapi_token).status_code == 403
    assert ask(client, people.salon.vapi_token, people.salon.vapi_secret).status_code == 200


def test_a_valid_signature_at_the_right_door_is_accepted_whatever_came_to_a_wrong_one_with_its_token(client, people):
    for _ in range(50):
        wrong = client.post(
            f"/webhooks/twilio/{people.salon.vapi_token}", data={}, environ_base={"REMOTE_ADDR": "198.51.100.7"}
        )
        assert wrong.status_code == 404
    assert ask(client, people.salon.vapi_token, people.salon.vapi_secret).status_code == 200


def test_a_token_that_does_not_exist_is_looked_for_only_so_often(client, platform, people, monkeypatch):
    monkeypatch.setattr(refusals, "UNKNOWN_FOR_SECONDS", 60)
    seen = statements(platform)
    assert [ask(client, "nothing-here").status_code for _ in range(30)] == [404] * 30
    looked = sum("FROM integrations" in statement for statement in seen)
    assert looked == 4


def test_an_integration_made_meanwhile_is_found_soon_and_by_everybody_else_at_once(
    app, client, platform, people, monkeypatch
):
    monkeypatch.setattr(refusals, "UNKNOWN_FOR_SECONDS", 0.3)
    for _ in range(10):
        ask(client, "made-later")
    sealed = platform.vault.seal(parse_credentials("vapi", {"webhook_secret": "right"}))
    with platform.database.transaction(system=True) as session:
        session.add(Integration(org_id=people.salon.id, provider="vapi", token="made-later", credentials=sealed))
    assert ask(client, "made-later", "right", address="203.0.113.9").status_code == 200
    later = refusals.time.monotonic() + 0.4
    monkeypatch.setattr(refusals.time, "monotonic", lambda: later)
    assert ask(client, "made-later", "right").status_code == 200


def test_it_is_looked_for_again_soon_also_while_it_is_asked_for_all_the_time(client, platform, people, monkeypatch):
    moment = refusals.time.monotonic()
    monkeypatch.setattr(refusals, "UNKNOWN_FOR_SECONDS", 2.0)
    seen = statements(platform)
    for second in range(10):
        monkeypatch.setattr(refusals.time, "monotonic", lambda second=second: moment + second)
        for _ in range(10):
            assert ask(client, "nothing-here").status_code == 404
    looked = sum("FROM integrations" in statement for statement in seen)
    assert 4 + 4 <= looked <= 4 + 5


@pytest.mark.parametrize("token", ["a%00b", "%00", "x" * 65, "a.b", "a%20b", "%C3%A9", "%ff"])
@pytest.mark.parametrize("path", ["/webhooks/vapi/{}", "/webhooks/twilio/{}/status", "/webhooks/google-calendar/{}"])
def test_what_no_token_can_look_like_is_not_there_and_not_looked_for(client, platform, people, path, token):
    seen = statements(platform)
    answer = client.post(path.format(token), data={})
    assert (answer.status_code, answer.get_json()["code"]) == (404, "unknown_endpoint")
    assert not seen


def test_whoever_guesses_tokens_is_told_of_as_one(client, people, capsys):
    capsys.readouterr()
    assert {ask(client, f"guess-{number}").status_code for number in range(30)} == {404}
    assert len(lines(capsys)) == 4


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(refusals, "MOST_ENTRIES", 100)
    count = Refusals(1)
    for number in range(1000):
        count.note("a", str(number), is_unknown=True)
    assert len(count._counts) == 100


def test_an_address_behind_a_trusted_proxy_is_the_clients_own(settings, people, capsys):
    behind = create_app(settings.model_copy(update={"trusted_proxies": 1}))
    client = behind.test_client()

    def refused(forwarded: str) -> None:
        client.post(f"/webhooks/vapi/{people.salon.vapi_token}", json={}, headers={"X-Forwarded-For": forwarded})

    capsys.readouterr()
    for number in range(10):
        refused(f"10.0.0.{number}, 198.51.100.7")  # what the client adds itself is not believed
    assert len(lines(capsys)) == 4
    refused("198.51.100.8")
    assert len(lines(capsys)) == 1
    behind.extensions["platform"].close()
