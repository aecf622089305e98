"""Dates are the database's: a machine whose own clock is wrong does nothing too soon, and waits no hour for it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from app.services import appointments as appointment_service
from tests.integration.test_booking import ADA, tomorrow
from tests.integration.test_texts import plan, rows


def system(platform, statement):
    with platform.database.transaction(system=True) as session:
        result = session.execute(text(statement))
        return [tuple(row) for row in result.all()] if result.returns_rows else []


def test_a_text_that_was_begun_in_the_future_waits_for_its_look_up_from_now_on(platform, people, world, settle):
    plan(platform, people.salon)
    with platform.database.transaction(people.salon.id) as session:
        ahead = "UPDATE messages SET status = 'sending', sends = 1, sending_since = now() + interval '1 hour'"
        session.execute(text(ahead))
    settle(lambda: rows(platform, people.salon) == ["sent"], seconds=15)
    assert len(world.messages()) == 1
    assert len(world.requests("twilio", "list_messages")) == 2


@pytest.mark.parametrize("hours", [-1, 1])
def test_work_is_dated_by_the_databases_clock_whatever_the_machines_own_says(
    client, platform, people, monkeypatch, hours
):
    class Wrong(appointment_service.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + timedelta(hours=hours)

    monkeypatch.setattr(appointment_service, "datetime", Wrong)
    people.salon.tool(client, "book_appointment", call_id="c", start=tomorrow(18).isoformat(), name="Ada", phone=ADA)
    found = system(
        platform,
        "SELECT extract(epoch FROM next_attempt_at - now())::float8 FROM webhook_delivery_log"
        " WHERE type = 'appointment.finish'",
    )
    assert all(5 < left <= 10 for (left,) in found)
    assert found
