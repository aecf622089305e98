"""Real accounts are connected by command: a consent that is good once, and providers told where to post."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from flask.testing import FlaskClient
from sqlalchemy import text

from app import create_app
from app.config import Settings
from app.services.platform import Platform
from sandbox.standins import RemoteWorld
from tests.command_line import CommandLine, refused
from tests.leaks import plant
from tests.people import Business, People

CLIENT_ID = "voicedesk.apps.googleusercontent.com"
CALLBACK = "https://voicedesk.test/connect/google/callback"


@pytest.fixture
def client_secret() -> str:
    made = secrets.token_hex(16)
    plant(made)
    return made


@pytest.fixture
def settings(settings: Settings, world: RemoteWorld, client_secret: str) -> Settings:
    world.google_oauth_client(CLIENT_ID, client_secret, [CALLBACK])
    world.google_person("owner@example.com")
    more = {"google_client_id": CLIENT_ID, "google_client_secret": client_secret, "vapi_private_key": "a-private-key"}
    return settings.model_copy(update=more)


def consent(link: str) -> str:
    """What the browser is sent to after a click at Google, without its host."""
    answer = requests.get(link, allow_redirects=False, timeout=10)
    assert answer.status_code == 302, answer.text
    went_to = urlsplit(answer.headers["Location"])
    assert f"{went_to.scheme}://{went_to.netloc}{went_to.path}" == CALLBACK
    return f"{went_to.path}?{went_to.query}"


def google_of(cli: CommandLine, org_id: Any) -> list[dict[str, Any]]:
    found = cli.data("integration", "list", "--org", org_id)
    return [one for one in found if one["provider"] == "google-calendar"]


class TestConsent:
    def test_a_link_leads_through_googles_page_to_a_calendar_that_can_be_asked(
        self, cli: CommandLine, client: FlaskClient, platform: Platform, bakery: Business, world: RemoteWorld
    ) -> None:
        world.calendar("bakery@group.calendar.google.com")
        made = cli.data("integration", "connect", "google", bakery.id, "--calendar", "bakery@group.calendar.google.com")
        answer = client.get(consent(made["link"]))
        assert answer.status_code == 200
        assert "Connected" in answer.text
        (row,) = google_of(cli, bakery.id)
        assert {"calendar_id", "client_id", "client_secret", "refresh_token"} <= set(row["keys"])
        assert cli.data("integration", "check", row["id"]) == []

    def test_the_refresh_token_is_kept_encrypted_and_shown_nowhere(
        self, cli: CommandLine, client: FlaskClient, platform: Platform, bakery: Business, world: RemoteWorld
    ) -> None:
        answer = client.get(consent(cli.data("integration", "connect", "google", bakery.id)["link"]))
        token = platform.directory.integration(bakery.id, "google-calendar").credentials.refresh_token
        plant(token.get_secret_value())
        with platform.database.transaction(system=True) as session:
            kept = session.execute(text("SELECT credentials FROM integrations")).scalars().all()
        assert all(token.get_secret_value().encode() not in bytes(one) for one in kept)
        assert token.get_secret_value() not in answer.text
        assert answer.headers["Cache-Control"] == "no-store"

    def test_a_link_works_once(self, cli: CommandLine, client: FlaskClient, bakery: Business) -> None:
        link = cli.data("integration", "connect", "google", bakery.id)["link"]
        assert client.get(consent(link)).status_code == 200
        again = client.get(consent(link))
        assert again.status_code == 400
        assert "used already" in again.text
        assert len(google_of(cli, bakery.id)) == 1

    def test_the_link_is_proof_by_pkce_and_tells_nobody_the_verifier(self, cli: CommandLine, bakery: Business) -> None:
        asked = parse_qs(urlsplit(cli.data("integration", "connect", "google", bakery.id)["link"]).query)
        assert asked["code_challenge_method"] == ["S256"]
        assert len(asked["code_challenge"][0]) == 43
        assert asked["access_type"] == ["offline"]
        assert str(bakery.id) not in asked["state"][0]

    @pytest.mark.parametrize("spoil", [lambda state: state[:-2] + "AA", lambda state: "", lambda state: "x" * 5000])
    def test_a_state_that_is_not_ours_is_refused_before_google_is_asked(
        self, cli: CommandLine, client: FlaskClient, bakery: Business, world: RemoteWorld, spoil: Any
    ) -> None:
        asked = parse_qs(urlsplit(consent(cli.data("integration", "connect", "google", bakery.id)["link"])).query)
        answer = client.get(
            "/connect/google/callback", query_string={"state": spoil(asked["state"][0]), "code": asked["code"][0]}
        )
        assert answer.status_code == 400
        assert world.requests("google", "issue_token") == []

    def test_a_link_is_too_old_after_half_an_hour(
        self, cli: CommandLine, client: FlaskClient, bakery: Business, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = consent(cli.data("integration", "connect", "google", bakery.id)["link"])
        now = time.time()
        monkeypatch.setattr("cryptography.fernet.time.time", lambda: now + 1801)
        answer = client.get(path)
        assert answer.status_code == 400
        assert "too old" in answer.text

    def test_who_refuses_or_leaves_out_a_permission_is_told_and_nothing_is_kept(
        self, cli: CommandLine, client: FlaskClient, bakery: Business, world: RemoteWorld
    ) -> None:
        link = cli.data("integration", "connect", "google", bakery.id)["link"]
        world.google_person("owner@example.com", refuses=True)
        assert "did not consent" in client.get(consent(link)).text
        world.google_person("owner@example.com", scope="https://www.googleapis.com/auth/calendar.freebusy")
        left_out = client.get(consent(link))
        assert left_out.status_code == 502
        assert "tick every permission" in left_out.text
        assert google_of(cli, bakery.id) == []
        world.google_person("owner@example.com")
        assert client.get(consent(link)).status_code == 200

    def test_while_google_is_away_the_link_stays_good(
        self, cli: CommandLine, client: FlaskClient, bakery: Business, world: RemoteWorld
    ) -> None:
        link = cli.data("integration", "connect", "google", bakery.id)["link"]
        path = consent(link)
        world.fault("google", "error_500", operation="issue_token", times=1)
        assert client.get(path).status_code == 503
        assert client.get(consent(link)).status_code == 200

    def test_a_withdrawn_consent_is_mended_by_a_new_one_in_the_same_connection(
        self, cli: CommandLine, client: FlaskClient, people: People, world: RemoteWorld, client_secret: str
    ) -> None:
        salon = people.salon
        (row,) = google_of(cli, salon.id)
        world.revoke(email="owner@example.com")
        (broken,) = refused(cli, row["id"])
        assert broken["fix"] == f"integration connect google {salon.id}"
        own = salon.platform.directory.integration(salon.id, "google-calendar").credentials
        world.google_oauth_client(own.client_id, own.client_secret.get_secret_value(), [CALLBACK])
        assert client.get(consent(cli.data("integration", "connect", "google", salon.id)["link"])).status_code == 200
        assert [one["id"] for one in google_of(cli, salon.id)] == [row["id"]]
        assert cli.data("integration", "check", row["id"]) == []

    def test_a_consent_takes_the_place_of_a_service_account(
        self, cli: CommandLine, client: FlaskClient, bakery: Business, world: RemoteWorld
    ) -> None:
        key = json.dumps(world.service_account())
        world.calendar("bakery@group.calendar.google.com")
        made = cli.data(
            *("integration", "add", bakery.id, "google-calendar"),
            *("--set", f"service_account_json={key}", "--set", "calendar_id=bakery@group.calendar.google.com"),
        )
        assert cli.data("integration", "check", made["id"]) == []
        assert client.get(consent(cli.data("integration", "connect", "google", bakery.id)["link"])).status_code == 200
        (row,) = google_of(cli, bakery.id)
        assert "service_account_json" not in row["keys"]
        assert cli.data("integration", "check", made["id"]) == []


def test_without_an_oauth_client_the_command_says_which_settings_it_needs(platform: Platform, bakery: Business) -> None:
    bare = create_app(platform.settings.model_copy(update={"google_client_id": None}))
    error = CommandLine(bare).refusal("integration", "connect", "google", bakery.id)
    bare.extensions["platform"].close()
    assert "GOOGLE_CLIENT_ID" in error["message"]
