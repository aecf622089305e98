"""Behind a tunnel: a refusal names the URL that it expected, and `integration apply --dev` tries the road first."""

from __future__ import annotations

import pytest

from tests.command_line import CommandLine


@pytest.fixture
def line(app) -> CommandLine:
    """The command line."""
    return CommandLine(app)


def reached_at(platform, url: str) -> None:
    platform.settings = platform.settings.model_copy(update={"public_base_url": url})


def id_of(line, people, provider: str = "twilio") -> str:
    rows = line.data("integration", "list", "--org", people.salon.id)
    return next(row["id"] for row in rows if row["provider"] == provider)


def test_a_refusal_names_the_url_that_it_expected(line, platform, people, served):
    reached_at(platform, "https://desk.example.net")
    path = f"/webhooks/twilio/{people.salon.twilio_token}"
    given = ("--url", f"{served}{path}?a=b%20c", "--secret", people.salon.auth_token)
    told = line.data("simulate", "twilio", "inbound", *given, "--account-sid", people.salon.account_sid)
    assert told["status"] == 403
    assert f'"expected_url":"https://desk.example.net{path}?a=b%20c"' in told["body"]
    public = ("--public-url", f"https://desk.example.net{path}?a=b%20c")
    told = line.data("simulate", "twilio", "inbound", *given, *public, "--account-sid", people.salon.account_sid)
    assert told["status"] == 200


def test_a_token_that_nobody_has_is_told_nothing(client):
    answer = client.post("/webhooks/twilio/nobody", data="", content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 404
    assert "expected_url" not in answer.get_json()


@pytest.mark.parametrize("provider", ["vapi", "twilio", "google-calendar"])
def test_the_road_is_tried_without_leaving_a_trace(line, platform, people, served, provider):
    reached_at(platform, served)
    told = line.data("integration", "apply", id_of(line, people, provider), "--dev")
    assert told["applied"] is False
    assert line.data("deliveries", "list") == []


def test_a_tunnel_that_is_closed_is_told(line, platform, people):
    reached_at(platform, "http://127.0.0.1:9")
    said = line.refusal("integration", "apply", id_of(line, people), "--dev")["message"]
    assert said.startswith("nothing answers at http://127.0.0.1:9")


def test_a_tunnel_that_leads_elsewhere_is_told(line, platform, people, world):
    reached_at(platform, world.slack_url.rstrip("/"))
    said = line.refusal("integration", "apply", id_of(line, people), "--dev")["message"]
    assert "is not this house" in said


def test_a_web_process_started_with_another_address_is_told(line, platform, people, served, monkeypatch):
    import app.http.webhooks as door

    reached_at(platform, served)
    monkeypatch.setattr(door, "problem", _as_if_started_with("https://yesterday.example.net", served, door.problem))
    done = line.run("integration", "apply", id_of(line, people), "--dev")  # its stderr is the server's too, here
    assert done.exit_code == 1
    assert f"PUBLIC_BASE_URL=https://yesterday.example.net, this command {served}" in done.stderr


def _as_if_started_with(other: str, base: str, problem):
    def told(status: int, code: str, detail: str, **extra: str):
        return problem(status, code, detail, expected_url=extra["expected_url"].replace(base, other))

    return told


def test_in_production_nobody_tries(line, platform, people):
    platform.settings = platform.settings.model_copy(update={"environment": "production"})
    assert "production" in line.refusal("integration", "apply", id_of(line, people), "--dev")["message"]


def test_an_integration_that_takes_anything_is_not_tried(line, platform, people, served):
    reached_at(platform, served)
    one = id_of(line, people)
    line.data("integration", "set-verification", one, "shadow")
    assert "shadow" in line.refusal("integration", "apply", one, "--dev")["message"]
