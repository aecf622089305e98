"""`simulate scene`: a busy day, an outage and a number moving in, played against a server by its URLs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from app.services import scenes
from tests.command_line import CommandLine


@pytest.fixture
def line(app) -> CommandLine:
    """The command line."""
    return CommandLine(app)


@pytest.fixture
def doors(platform, people, served, monkeypatch) -> list[object]:
    """The salon's webhooks as they are typed. What is signed is the URL that is posted to."""
    platform.settings = platform.settings.model_copy(update={"public_base_url": served})
    salon = people.salon
    monkeypatch.setattr(scenes, "PAUSE_SECONDS", 0.05)
    return [
        *("--vapi", f"{served}/webhooks/vapi/{salon.vapi_token}", "--vapi-secret", salon.vapi_secret),
        *("--twilio", f"{served}/webhooks/twilio/{salon.twilio_token}", "--twilio-secret", salon.auth_token),
        *("--account-sid", salon.account_sid, "--number", salon.number, "--calls", 3),
    ]


def test_on_a_busy_day_everything_is_taken_and_what_is_repeated_is_stored_once(line, doors, people, settle):
    told = line.data("simulate", "scene", "busy-day", *doors)
    assert told["lost"] == 0
    assert {status for step in told["steps"] for status in step["answers"]} == {"200"}
    first, news, again = told["steps"]
    assert news["sent"] == again["sent"] == 9
    of_salon = line.data("deliveries", "list", "--org", people.salon.id, "--limit", 1000)
    came_in = [row for row in of_salon if row["provider"] != "voicedesk"]
    assert len(came_in) == first["sent"] + news["sent"]
    assert line.data("appointments", "list", "--org", people.salon.id)


def test_a_number_moving_in_is_refused_with_the_wrong_secret_and_then_taken(line, doors, people):
    told = line.data("simulate", "scene", "moving-in", *doors)
    wrong, mended, ordinary = told["steps"]
    assert set(wrong["answers"]) == {"403"}
    assert mended["answers"] == {"200": wrong["sent"]}
    assert set(ordinary["answers"]) == {"200"}
    assert told["lost"] == 0


def test_in_shadow_mode_a_number_moves_in_without_losing_anything(line, doors, people):
    for one in line.data("integration", "list", "--org", people.salon.id):
        line.data("integration", "set-verification", one["id"], "shadow")
    told = line.data("simulate", "scene", "moving-in", *doors)
    assert [set(step["answers"]) for step in told["steps"]] == [{"200"}] * 3


def test_an_outage_is_sat_out_as_the_providers_do(line, doors):
    told = line.data("simulate", "scene", "outage", "--seconds", 0.2, *doors)
    assert told["lost"] == 0
    assert told["steps"][-1]["sent"] == 18


@pytest.fixture
def broken() -> Iterator[str]:
    """A server that has an outage and never gets over it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/webhooks/twilio/x"
    server.shutdown()
    server.server_close()


def test_what_no_try_of_the_provider_was_taken_for_is_counted_as_lost(line, broken, monkeypatch):
    monkeypatch.setattr(scenes, "PAUSE_SECONDS", 0.01)
    told = line.data(
        "simulate", "scene", "outage", "--seconds", 0.05, "--twilio", broken, "--twilio-secret", "s", "--calls", 2
    )
    assert told["lost"] == sum(step["sent"] for step in told["steps"]) > 0


def test_a_scene_needs_a_webhook_and_its_secret(line):
    assert "a scene needs a webhook" in line.refusal("simulate", "scene", "busy-day")["message"]
    half = line.refusal("simulate", "scene", "busy-day", "--vapi", "http://127.0.0.1:1/x")
    assert half["message"] == "--vapi and --vapi-secret belong together"
