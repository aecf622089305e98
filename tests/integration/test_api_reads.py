"""What programs read: their own rows, in pages that miss nothing and repeat nothing."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg2
import pytest
from sqlalchemy import text

from app.models import Appointment, Call, Message
from app.services import api_reads
from app.services.drain import Drain
from tests.integration.api import Program

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)

NOBODY = "7d0f0c6e-4a54-4c7e-9a53-0d6f2b9c1e11"  # fixed: parallel test processes must collect the same names


@pytest.fixture
def salon(app, people) -> Program:
    return Program(app, people.salon.id)


def add_calls(platform, org_id, number: int, **facts) -> None:
    """Calls of the very same moment, so that only their ids tell them apart, and one a minute later each ten."""
    with platform.database.transaction(org_id) as session:
        for count in range(number):
            session.add(
                Call(
                    org_id=org_id,
                    vapi_call_id=f"call-{count}-{uuid4().hex[:6]}",
                    created_at=BEGAN + timedelta(minutes=count // 10, microseconds=123),
                    **{"status": "ended", **facts},
                )
            )


def walk(program: Program, path: str, **query) -> list[dict]:
    """All pages of a list."""
    found, cursor = [], {}
    for _ in range(200):
        answer = program.get(path, **query, **cursor)
        assert answer.status_code == 200, answer.get_json()
        page = answer.get_json()
        assert len(page["data"]) <= query.get("limit", 50)
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}
    raise AssertionError("the list does not end")


def test_pages_hold_every_row_once_and_in_order(salon, platform, people):
    add_calls(platform, people.salon.id, 35)
    found = walk(salon, "/calls", limit=4)
    assert len({call["id"] for call in found}) == 35
    assert found == sorted(found, key=lambda call: (call["created_at"], call["id"]), reverse=True)


def test_a_page_that_ends_the_list_exactly_has_no_next_one(salon, platform, people):
    add_calls(platform, people.salon.id, 8)
    first = salon.get("/calls", limit=4).get_json()
    second = salon.get("/calls", limit=4, cursor=first["next_cursor"]).get_json()
    assert (len(first["data"]), len(second["data"]), second["next_cursor"]) == (4, 4, None)


def test_what_comes_in_between_two_pages_moves_nothing(salon, platform, people):
    add_calls(platform, people.salon.id, 10)
    first = salon.get("/calls", limit=5).get_json()
    with platform.database.transaction(people.salon.id) as session:
        session.add(Call(org_id=people.salon.id, vapi_call_id="new", status="ringing"))
    second = salon.get("/calls", limit=5, cursor=first["next_cursor"]).get_json()
    assert not {call["id"] for call in first["data"]} & {call["id"] for call in second["data"]}
    assert "new" not in {call["call_id"] for call in second["data"]}


def test_since_and_until_are_a_half_open_stretch(salon, platform, people):
    add_calls(platform, people.salon.id, 30)
    from_on = (BEGAN + timedelta(minutes=1)).isoformat()
    before = (BEGAN + timedelta(minutes=2)).isoformat()
    assert len(walk(salon, "/calls", since=from_on, until=before, limit=3)) == 10


def test_calls_are_found_by_status_and_by_vapis_id(salon, platform, people):
    add_calls(platform, people.salon.id, 3)
    add_calls(platform, people.salon.id, 2, status="ringing")
    assert len(walk(salon, "/calls", status="ringing")) == 2
    (call,) = walk(salon, "/calls", status="ended", limit=1)[:1]
    assert walk(salon, "/calls", call_id=call["call_id"]) == [call]
    assert salon.get(f"/calls/{call['id']}").get_json() == call


def test_deliveries_are_filtered_paged_and_shown_with_attempts_and_payload(client, salon, platform, people):
    for number in range(5):
        people.salon.vapi(client, {"type": "hang", "call": {"id": f"c{number}"}})
    people.salon.vapi(client, {"type": "status-update", "status": "ended", "call": {"id": "c9"}})
    Drain(platform, threads=1).run()
    found = walk(salon, "/deliveries", limit=2)
    assert [row["id"] for row in found] == sorted((row["id"] for row in found), reverse=True)
    assert len(found) == 6
    assert len(walk(salon, "/deliveries", status="skipped", type="hang")) == 5
    assert walk(salon, "/deliveries", provider="twilio") == []
    (processed,) = walk(salon, "/deliveries", status="processed")
    shown = salon.get(f"/deliveries/{processed['id']}").get_json()
    assert shown["payload"]["call"]["id"] == "c9"
    assert [attempt["outcome"] for attempt in shown["attempts_log"]] == ["processed"]
    assert "integration_id" not in shown


def test_a_replay_puts_a_finished_delivery_back_and_says_who_asked(client, salon, platform, people):
    people.salon.vapi(client, {"type": "status-update", "status": "ended", "call": {"id": "c1"}})
    (delivery,) = walk(salon, "/deliveries")
    unfinished = salon.post(f"/deliveries/{delivery['id']}/replay")
    assert (unfinished.status_code, unfinished.get_json()["code"]) == (409, "unfinished")
    Drain(platform, threads=1).run()
    done = salon.post(f"/deliveries/{delivery['id']}/replay")
    assert done.status_code == 202
    assert [effect["kind"] for effect in done.get_json()["recorded_effects"]] == ["call"]
    assert salon.get(f"/deliveries/{delivery['id']}").get_json()["status"] == "received"
    with platform.database.transaction(system=True) as session:
        actors = session.execute(text("SELECT actor FROM operator_actions WHERE action = 'replay'")).scalars().all()
    assert actors == [f"api:{salon.prefix}"]


def test_texts_and_appointments_are_found_by_what_they_are(salon, platform, people):
    org_id = people.salon.id
    with platform.database.transaction(org_id) as session:
        for channel, status in (("sms", "sent"), ("whatsapp", "sent"), ("sms", "failed")):
            session.add(
                Message(
                    org_id=org_id,
                    direction="outbound",
                    channel=channel,
                    remote_address="+4915112345678",
                    own_address="+4930111110001",
                    body="hello",
                    status=status,
                )
            )
        for day, status in ((1, "booked"), (2, "cancelled"), (3, "booked")):
            begins = BEGAN + timedelta(days=day)
            session.add(
                Appointment(
                    org_id=org_id,
                    calendar_id="c",
                    starts_at=begins,
                    ends_at=begins + timedelta(minutes=30),
                    status=status,
                    name="Ada",
                )
            )
    assert len(walk(salon, "/messages", channel="sms", status="failed", direction="outbound")) == 1
    assert walk(salon, "/messages", direction="inbound") == []
    (text_out,) = walk(salon, "/messages", channel="whatsapp")
    assert (text_out["from"], text_out["to"]) == ("+4930111110001", "+4915112345678")
    booked = walk(salon, "/appointments", status="booked", limit=1)
    assert [row["starts_at"][:10] for row in booked] == ["2026-03-04", "2026-03-02"]
    assert walk(salon, "/appointments", since="2026-03-03T00:00:00Z", until="2026-03-04T00:00:00Z")[0]["name"] == "Ada"
    assert salon.get(f"/appointments/{booked[0]['id']}").get_json() == booked[0]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"since": "2026-03-01T12:00:00"}, "since"),
        ({"until": "soon"}, "until"),
        ({"since": "0001-01-01T00:00:00+23:59"}, "since"),
        ({"until": "9999-12-31T23:59:59-23:59"}, "until"),
        ({"page": 2}, "page"),
        ({"limit": [1, 2]}, "limit"),
        ({"cursor": "x" * 201}, "cursor"),
        ({"status": "a\x00b"}, "status"),
    ],
)
def test_a_wrong_question_is_told_by_its_field(salon, query, field):
    answer = salon.get("/calls", **query)
    assert answer.status_code == 422
    assert answer.content_type == "application/problem+json"
    assert [(fault["in"], fault["field"]) for fault in answer.get_json()["errors"]] == [("query", field)]


def test_a_time_may_have_any_offset(salon, platform, people):
    add_calls(platform, people.salon.id, 1)
    for offset in ("+23:59", "-23:59"):
        assert len(salon.get("/calls", since=f"2026-02-20T12:00:00{offset}").get_json()["data"]) == 1
    cursor = cursor_of(["2026-03-20T12:00:00+23:59", NOBODY])
    assert len(salon.get("/calls", cursor=cursor).get_json()["data"]) == 1


def cursor_of(said: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(said).encode()).decode()


@pytest.mark.parametrize("path", ["/calls", "/deliveries", "/messages", "/appointments"])
@pytest.mark.parametrize(
    "cursor",
    [
        "nonsense",
        "é",
        "=",
        cursor_of({}),
        cursor_of([]),
        cursor_of([0]),
        cursor_of([2**70]),
        cursor_of([True, "x"]),
        cursor_of([True]),
        cursor_of(["0001-01-01T00:00:00+23:59", NOBODY]),
        cursor_of(["9999-12-31T23:59:59-23:59", NOBODY]),
        cursor_of(["2026-03-01T12:00:00", NOBODY]),
        cursor_of(["2026-03-01", None]),
        cursor_of([None, NOBODY]),
        cursor_of("[" * 90),
    ],
)
def test_a_made_up_cursor_is_refused_and_breaks_nothing(salon, path, cursor):
    answer = salon.get(path, cursor=cursor)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_cursor")


@pytest.mark.parametrize(
    "path",
    [
        "/calls/not-an-id",
        f"/calls/{NOBODY}",
        "/deliveries/0",
        "/deliveries/9223372036854775807",
        "/deliveries/9223372036854775808",
        "/deliveries/-1",
        "/nothing",
    ],
)
def test_what_is_not_there_is_404(salon, path):
    answer = salon.get(path)
    assert answer.status_code == 404
    assert answer.content_type == "application/problem+json"


def test_a_question_that_takes_too_long_is_given_up(salon, postgres, database_urls, monkeypatch):
    monkeypatch.setattr(api_reads, "STATEMENT_TIMEOUT_MS", 100)
    locking = psycopg2.connect(postgres.superuser_url(database_urls.name))
    with locking, locking.cursor() as cursor:
        cursor.execute("LOCK TABLE calls IN ACCESS EXCLUSIVE MODE")
        answer = salon.get("/calls")
    locking.close()
    assert (answer.status_code, answer.get_json()["code"]) == (503, "too_slow")
    assert int(answer.headers["Retry-After"]) >= 1


def test_availability_is_what_is_neither_held_nor_busy(client, salon, people, world):
    tomorrow = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    free = salon.get("/availability", date=tomorrow).get_json()
    assert (free["timezone"], free["slot_minutes"]) == ("Europe/Berlin", 30)
    taken = free["slots"][5]["starts_at"]
    people.salon.tool(client, "book_appointment", call_id="c1", start=taken, name="Ada", phone="+4915112345678")
    after = salon.get("/availability", date=tomorrow).get_json()
    assert [slot for slot in free["slots"] if slot not in after["slots"]] == [free["slots"][5]]
    assert len(salon.get("/availability", date=tomorrow, days=3).get_json()["slots"]) > 2 * len(free["slots"])


def test_without_an_answer_of_the_calendar_nothing_is_offered(salon, world):
    world.fault("google", "error_500")
    answer = salon.get("/availability")
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize("query", [{"date": "tomorrow"}, {"days": 0}, {"days": 32}, {"date": "9999-12-31"}])
def test_availability_of_impossible_days_is_refused(salon, query):
    assert salon.get("/availability", **query).status_code == 422


def test_days_that_are_past_have_no_free_times(salon):
    assert salon.get("/availability", date="2020-01-01").get_json()["slots"] == []
