"""A calendar's owner withdraws the consent: one alert brings a page that leads to a new one, and nobody else may."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from sqlalchemy import text

from app.services.connecting import google
from tests.conftest import make_settings
from tests.integration.test_booking import ADA, appointments, tomorrow

TOKEN, CHANNEL = "xoxb-of-the-tests", "C0123456789"
CALLBACK = "https://voicedesk.test/connect/google/callback"


@pytest.fixture
def settings(database_urls, world):
    world.slack_token(TOKEN)
    world.slack_channel(CHANNEL, "alerts")
    quick = {"alert_window_seconds": 0, "slack_bot_token": TOKEN, "slack_alert_channel": CHANNEL}
    return make_settings(database_urls, world, **quick)


def links(post: dict[str, Any]) -> list[str]:
    return [unescape(found) for found in re.findall(r"<(https://[^|>]*/connect/[^|>]*)\|", str(post["blocks"]))]


def inside(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def wake(platform) -> None:
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE webhook_delivery_log SET next_attempt_at = now() WHERE finished_at IS NULL"))
        session.execute(text("UPDATE lanes SET due_at = now() WHERE token IS NULL"))


def test_a_withdrawn_consent_is_one_alert_with_a_link_that_mends_it(client, platform, people, world, settle, capfd):
    salon = people.salon
    own = platform.directory.integration(salon.id, "google-calendar").credentials
    world.google_oauth_client(own.client_id, own.client_secret.get_secret_value(), [CALLBACK])
    world.google_person("owner@example.com")
    world.revoke(email="owner@example.com")
    salon.tool(client, "book_appointment", call_id="c", start=tomorrow(9).isoformat(), name="Ada", phone=ADA)

    def told() -> list[dict[str, Any]]:
        """Of this organization: the same person has consented for the other one too."""
        platform.watcher.tick()
        return [post for post in world.slack_posts() if str(salon.id) in str(post["blocks"])]

    settle(told)
    for _ in range(3):
        told()
    (post,) = told()  # and not one more, however often is looked
    assert "refuses an organization" in post["text"]
    (page,) = links(post)
    written = capfd.readouterr()
    assert page.partition("=")[2] not in written.out + written.err

    to_google = client.get(inside(page))
    assert to_google.status_code == 302
    back = requests.get(to_google.headers["Location"], allow_redirects=False, timeout=10).headers["Location"]
    assert back.startswith(CALLBACK)
    assert client.get(inside(back)).status_code == 200
    wake(platform)
    settle(lambda: [row.status for row in appointments(platform, salon)] == ["booked"])
    settle(lambda: len(told()) == 2)
    assert "not refused" in told()[1]["text"]


def test_a_ticket_that_is_altered_too_old_or_something_else_leads_nowhere(client, platform, people, monkeypatch):
    page = google.page(platform, people.salon.id)
    assert page is not None
    good = inside(page)
    assert client.get(good).status_code == 302
    state = google.link(platform, people.salon.id)["link"].partition("state=")[2].partition("&")[0]
    for wrong in (
        good[:-8] + "A" * 8,
        "/connect/google",
        "/connect/google?ticket=" + "x" * 5000,
        f"{good.partition('=')[0]}={state}",
    ):
        answer = client.get(wrong)
        assert answer.status_code == 400, wrong
        assert "too old" in answer.text
    ticket = good.partition("=")[2]
    assert client.get(f"/connect/google/callback?code=x&state={ticket}").status_code == 400
    monkeypatch.setattr(google, "PAGE_GOOD_FOR", -google.PAGE_GOOD_FOR)
    assert client.get(good).status_code == 400
