"""What a caller asked while the database was away is done when it is back, once, and the outcome is texted."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text

from app.services import spool_drain
from tests.spooling import rows

CALLER = "+4915112345678"
START = "2031-03-03T10:00:00+01:00"
WHO = {"start": START, "name": "Ada Lovelace", "phone": CALLER}


def texts_to(platform, number: str) -> list[str]:
    with platform.database.transaction(system=True) as session:
        found = session.execute(
            text("SELECT body FROM messages WHERE direction = 'outbound' AND remote_address = :to ORDER BY created_at"),
            {"to": number},
        )
        return [row[0] for row in found]


def test_a_booking_asked_for_without_a_database_is_made_and_confirmed_when_it_is_back(
    met,
    platform,
    client,
    away,
    settle,
    monkeypatch,
):
    monkeypatch.setattr("app.services.appointments.FINISH_AFTER", timedelta())
    with away():
        said = met.salon.tool(client, "book_appointment", call_id="c1", tool_call_id="t1", **WHO)
        again = met.salon.tool(client, "book_appointment", call_id="c1", tool_call_id="t1", **WHO)
    assert said == again
    assert "text you" in said
    assert "ten" not in said
    assert "noted" not in said
    done = spool_drain.drain(platform)
    assert (done.stored, done.duplicates) == (1, 1)
    settle(lambda: any("confirmed" in one for one in texts_to(platform, CALLER)))
    assert rows(platform, "status", of="appointments", order="created_at") == [("booked",)]
    assert met.salon.tool(client, "book_appointment", call_id="c1", tool_call_id="t1", **WHO) == said
    assert len(rows(platform, "id", of="appointments", order="id")) == 1


def test_a_time_that_is_gone_meanwhile_is_answered_by_text_with_others(
    met,
    platform,
    client,
    away,
    settle,
):
    with away():
        met.salon.tool(client, "book_appointment", call_id="c1", **WHO)
    met.salon.tool(client, "book_appointment", call_id="c2", **{**WHO, "phone": "+4915100000001"})
    spool_drain.drain(platform)
    settle(lambda: texts_to(platform, CALLER))
    (body,) = texts_to(platform, CALLER)
    assert "has gone in the meantime" in body
    assert "Free are" in body


def test_what_was_asked_again_and_done_since_is_left_alone(met, platform, client, away, settle):
    with away():
        met.salon.tool(client, "send_text", call_id="c1", tool_call_id="t1", phone=CALLER, text="our address is here")
    met.salon.tool(client, "send_text", call_id="c1", tool_call_id="t1", phone=CALLER, text="our address is here")
    assert spool_drain.drain(platform).duplicates == 1
    settle(lambda: texts_to(platform, CALLER))
    assert texts_to(platform, CALLER) == ["our address is here"]


def test_a_cancellation_of_nothing_is_told(met, platform, client, away, settle):
    with away():
        said = met.salon.tool(client, "cancel_appointment", call_id="c1", phone=CALLER)
    assert "text you" in said
    spool_drain.drain(platform)
    settle(lambda: texts_to(platform, CALLER))
    assert "no upcoming appointment" in texts_to(platform, CALLER)[0]


def test_a_question_about_free_times_promises_nothing_and_is_only_recorded(met, platform, client, away):
    with away():
        said = met.salon.tool(client, "check_availability", call_id="c1", start="2031-03-03")
    assert "take a message" in said
    assert spool_drain.drain(platform).stored == 1
    assert rows(platform, "type, status") == [("tool-calls", "processed")]


def test_without_a_spool_nothing_is_promised(met, platform, client, away, monkeypatch):
    monkeypatch.setattr(platform.spool.folder, "_most_bytes", 0)
    with away():
        said = met.salon.tool(client, "book_appointment", call_id="c1", **WHO)
    assert "taken it down" not in said
