"""Push channels over HTTP: one that lasts for each calendar, its successor in time, and no gap between them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from app import create_app
from app.services import calendar_channels, calendar_sync
from tests.calendars import Desk
from tests.command_line import CommandLine


@pytest.fixture
def desk(platform, world, people, client, settle, served, monkeypatch) -> Desk:
    """North Street Salon's calendar, read once; no channel yet."""
    monkeypatch.setattr(calendar_sync, "GAP", timedelta(seconds=0.1))
    world.pushes(via=served)
    calendar_sync.tend(platform)
    desk = Desk(platform, world, people.salon, client, settle)
    settle(lambda: desk.one("SELECT synced_at FROM calendar_syncs") and desk.at_rest())
    return desk


def channels(desk: Desk):
    return desk.world.channels(desk.business.calendar_id)


def rows(desk: Desk):
    return desk.all("SELECT * FROM calendar_channels ORDER BY created_at")


def tend(desk: Desk) -> None:
    """One round of the watcher's, and what it planned."""
    calendar_channels.tend(desk.platform)
    desk.settle(desk.at_rest)


def believed(desk: Desk) -> set[str]:
    """The channels whose word of a change was taken."""
    told = [made for made in desk.world.notifications() if made["state"] == "exists"]
    return {made["channel_id"] for made in told if made["answer"] == 204}


def ends_in(desk: Desk, *, hours: int) -> None:
    """Almost all of the channel's week is over."""
    dates = f"created_at = now() - interval '6 days', expires_at = now() + interval '{hours} hours'"
    desk.all(f"UPDATE calendar_channels SET {dates} RETURNING 1")


def test_a_connected_calendar_gets_one_channel_that_is_greeted_and_then_notifies(desk):
    for _ in range(3):
        tend(desk)
    desk.settle(lambda: rows(desk)[0].heard_at)
    (channel,) = channels(desk)
    (row,) = rows(desk)
    assert (row.channel_id, row.resource_id) == (channel["id"], channel["resource_id"])
    assert channel["address"] == f"https://voicedesk.test/webhooks/google-calendar/{desk.business.google_token}"
    assert channel["token"] == desk.business.channel_token
    assert abs(row.expires_at - row.created_at - timedelta(days=7)) < timedelta(minutes=1)
    desk.enter(8, 9)
    desk.settle(lambda: desk.busy())


def test_near_its_end_a_channel_gets_one_successor_and_is_stopped_when_that_has_spoken(desk, served):
    tend(desk)
    desk.settle(lambda: rows(desk)[0].heard_at)
    ends_in(desk, hours=40)
    tend(desk)
    assert len(channels(desk)) == 1
    ends_in(desk, hours=30)
    desk.world.pushes(via="http://127.0.0.1:9")  # the new one's greeting is lost
    for _ in range(3):
        tend(desk)
    old, new = channels(desk)
    assert (old["lives"], new["lives"]) == (True, True)
    desk.world.pushes(via=served)
    desk.enter(8, 9)  # both tell of it, and both are believed
    desk.settle(lambda: rows(desk)[1].heard_at and desk.busy())
    desk.settle(lambda: believed(desk) == {old["id"], new["id"]})
    for _ in range(3):
        tend(desk)
    assert [channel["lives"] for channel in channels(desk)] == [False, True]
    assert [row.stopped_at is None for row in rows(desk)] == [False, True]
    assert len(desk.world.requests("google", "watch_events")) == 3  # Harbour Dental has one, too


def test_a_channel_of_a_short_life_is_renewed_in_its_last_third(desk):
    desk.world.pushes(channel_seconds=6)
    tend(desk)
    desk.settle(lambda: rows(desk)[0].heard_at)
    tend(desk)
    assert len(channels(desk)) == 1

    def renewed():
        calendar_channels.tend(desk.platform)
        return len(channels(desk)) == 2

    desk.settle(renewed)
    assert [channel["lives"] for channel in channels(desk)][1]


def test_a_channel_that_is_gone_already_counts_as_stopped(desk):
    tend(desk)
    desk.settle(lambda: rows(desk)[0].heard_at)
    ends_in(desk, hours=1)
    desk.all("UPDATE calendar_channels SET resource_id = 'gone' RETURNING 1")
    tend(desk)
    desk.settle(lambda: len(rows(desk)) == 2 and rows(desk)[1].heard_at)
    tend(desk)
    (asked,) = desk.world.requests("google", "stop_channel")
    assert asked["status"] == 404
    assert [row.stopped_at is None for row in rows(desk)] == [False, True]


def test_an_answer_that_is_lost_leaves_one_channel_in_the_end(desk):
    desk.world.fault("google", "cut_after", operation="watch_events", times=1)
    tend(desk)
    desk.settle(lambda: rows(desk) and all(row.heard_at for row in rows(desk)))
    for _ in range(3):
        tend(desk)
    assert sum(channel["lives"] for channel in channels(desk)) == 1
    assert len(channels(desk)) <= 2


def test_a_calendar_changed_for_another_gets_a_channel_of_its_own(desk):
    tend(desk)
    desk.settle(lambda: rows(desk)[0].heard_at)
    desk.all("UPDATE calendar_channels SET calendar_id = 'before@example.com' RETURNING 1")
    tend(desk)
    desk.settle(lambda: len(rows(desk)) == 2 and rows(desk)[1].heard_at)
    tend(desk)
    assert [row.stopped_at is None for row in rows(desk)] == [False, True]


def test_without_an_https_address_there_are_no_channels_and_nothing_is_planned(desk):
    settings = desk.platform.settings.model_copy(update={"public_base_url": "http://127.0.0.1:8000"})
    plain = create_app(settings).extensions["platform"]
    calendar_channels.tend(plain)
    plain.close()
    assert desk.one("SELECT count(*) FROM webhook_delivery_log WHERE type = 'calendar.watch'") == 0


def test_a_calendar_connected_without_a_channel_token_is_given_one(desk, monkeypatch):
    monkeypatch.setattr(calendar_channels, "KNOWN_AFTER", timedelta(0))
    platform = desk.platform
    endpoint = platform.directory.integration(desk.business.id, "google-calendar")
    given = endpoint.credentials.model_copy(update={"channel_token": None})
    with platform.database.transaction(system=True) as session:
        values = {"id": endpoint.integration_id, "sealed": platform.vault.seal(given)}
        session.execute(text("UPDATE integrations SET credentials = :sealed WHERE id = :id"), values)
    platform.directory.forget()
    tend(desk)
    desk.settle(lambda: rows(desk) and rows(desk)[0].heard_at)
    (channel,) = channels(desk)
    assert len(channel["token"]) >= 32
    assert channel["token"] != desk.business.channel_token
    known = platform.directory.integration(desk.business.id, "google-calendar").credentials
    assert known.channel_token.get_secret_value() == channel["token"]
    assert known.refresh_token == given.refresh_token


def test_a_channel_that_google_will_not_open_is_tried_again_later_and_not_at_every_look(desk):
    desk.world.revoke(email="owner@example.com")
    desk.world.expire_tokens()
    for _ in range(5):
        calendar_channels.tend(desk.platform)
    assert desk.one("SELECT count(*) FROM webhook_delivery_log WHERE type = 'calendar.watch'") == 1


def test_the_command_line_lists_channels_and_plans_a_sync(desk, app):
    cli = CommandLine(app)
    tend(desk)
    desk.settle(lambda: rows(desk)[0].heard_at)
    listed = {row["org_id"]: row for row in cli.data("calendar", "channels")}
    mine = listed[str(desk.business.id)]
    assert mine["channel_id"] == channels(desk)[0]["id"]
    assert mine["heard_at"]
    assert mine["synced_at"]
    assert mine["stopped_at"] is None
    assert desk.business.channel_token not in str(listed)
    desk.enter(8, 9)
    planned = cli.data("calendar", "sync", desk.business.id)
    assert planned["org_id"] == str(desk.business.id)
    desk.settle(lambda: desk.busy())
    assert cli.refusal("calendar", "sync", "00000000-0000-4000-8000-000000000000")["code"] == "not_connected"
