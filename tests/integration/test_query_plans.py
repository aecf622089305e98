"""No hot query reads a large table from end to end: what each asks is explained as it is asked, in a full inbox."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from uuid import UUID

import psycopg2
import pytest
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from app.database import at_once
from app.models import belongings, canaries, deliveries, inbox, inspected
from app.services import api_reads, cleanup, handlers, story
from app.services.drain import Drain
from app.services.platform import Platform
from tests.conftest import superuser
from tests.eventually import eventually
from tests.probes import probe

MANY = 20_000
OLD = 1111  # of those, whose numbers begin with a seven and that ended long ago
LARGE = "webhook_delivery_log|webhook_payloads|delivery_attempts|processed_webhook_events|ledger_entries|lanes"
_SCAN = re.compile(rf"Seq Scan on ({LARGE})\b.*")
_OF_DELIVERIES = re.compile(r"Scan[^\n]* on webhook_delivery_log\b")
_ALL_DELIVERIES = re.compile(_OF_DELIVERIES.pattern + r"[^\n]*\n(?!\s*(Index|Recheck) Cond: .*\b(id|lane_key)\b)")
_ALL_LANES = re.compile(r"Scan[^\n]* on lanes\b[^\n]*\n(?!\s*(Index|TID) Cond)")  # no key says which of them


@pytest.fixture
def full(postgres, platform, database_urls, people) -> None:
    """20,000 finished events with all that belongs to them, and 20,000 that wait for tomorrow."""
    org = str(people.salon.id)
    finished = (
        "INSERT INTO webhook_delivery_log (org_id, provider, type, event_key, lane_key, status, finished_at,"
        " next_attempt_at) SELECT %s, 'test', 'probe', 'done' || i, 'done' || i, 'processed',"
        " CASE WHEN i::text LIKE '7%%' THEN now() - interval '9 days' ELSE now() END, now()"
        " FROM generate_series(1, %s) i"
    )
    waiting = (
        "INSERT INTO webhook_delivery_log (org_id, provider, type, event_key, lane_key, next_attempt_at)"
        " SELECT %s, 'test', 'probe', 'waits' || i, 'waits' || i, now() + interval '1 day'"
        " FROM generate_series(1, %s) i"
    )
    belongings = (
        "INSERT INTO lanes SELECT org_id, lane_key, next_attempt_at FROM webhook_delivery_log"
        " WHERE status = 'received'",
        "INSERT INTO webhook_payloads (delivery_id, org_id, body) SELECT id, org_id, '{}' FROM webhook_delivery_log",
        "INSERT INTO delivery_attempts (org_id, delivery_id, number, lane_token, process, ended_at)"
        " SELECT org_id, id, 1, 1, 'worker', now() FROM webhook_delivery_log",
        "INSERT INTO processed_webhook_events (integration_id, event_key, org_id)"
        " SELECT gen_random_uuid(), event_key, org_id FROM webhook_delivery_log",
        "INSERT INTO ledger_entries (org_id, provider, accepted) SELECT org_id, provider, 1 FROM webhook_delivery_log",
    )
    with superuser(postgres, database_urls.name) as cursor:
        cursor.execute(finished, (org, MANY))
        cursor.execute(waiting, (org, MANY))
        for statement in belongings:
            cursor.execute(statement)
        cursor.execute("ANALYZE")


@contextmanager
def explained(platform: Platform) -> Iterator[dict[str, str]]:
    """The plans of all that is asked within the block, by what was asked; each as the role that asks it."""
    plans: dict[str, str] = {}

    def explain(_connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked = cursor.mogrify(statement, values).decode()
        with cursor.connection.cursor() as beside:
            for part in asked.split(";"):
                if re.match(r"\s*SET LOCAL\b", part):
                    beside.execute(part)
                elif re.match(r"\s*(WITH|(?!SELECT set_config)SELECT|INSERT|UPDATE|DELETE)\b", part):
                    beside.execute("EXPLAIN (COSTS OFF) " + part)
                    plans[" ".join(part.split())] = "\n".join(row[0] for row in beside.fetchall())

    def explain_and_ask(engine: Engine, message: str, values: Any) -> Any:
        with closing(engine.raw_connection()) as connection, connection.cursor() as cursor:
            explain(None, cursor, message, values)
        return ask(engine, message, values)

    ask = at_once.ask
    event.listen(platform.database.engine, "before_cursor_execute", explain)
    at_once.ask = explain_and_ask
    try:
        yield plans
    finally:
        event.remove(platform.database.engine, "before_cursor_execute", explain)
        at_once.ask = ask


def accept_together(platform: Platform, org_id: Any) -> None:
    platform.groups.store_all([probe(org_id, f"one of {number}") for number in range(20)])


def skip(platform: Platform, org_id: Any) -> None:
    accept_together(platform, org_id)
    drain = Drain(platform, threads=16)
    eventually(lambda: drain.run() == 0, seconds=10)


def deliver(platform: Platform, org_id: Any) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(handlers._HANDLERS, ("test", "probe"), lambda _: None)
        skip(platform, org_id)


def read_pages(platform: Platform, org_id: Any) -> None:
    first = api_reads.page(platform, api_reads.DELIVERIES, org_id, limit=50, equal={})
    api_reads.page(platform, api_reads.DELIVERIES, org_id, limit=50, cursor=first["next_cursor"], equal={})
    api_reads.delivery(platform, org_id, first["data"][0]["id"])


def tell_stories(platform: Platform, org_id: Any) -> None:
    for which in ({}, {"org_id": org_id}):
        assert story.tell(platform, "done7", **which)
        assert story.tell(platform, "waits7", **which)
        assert story.tell(platform, "7", **which)


def find_by_event(platform: Platform, org_id: Any) -> None:
    with platform.database.transaction(system=True) as session:
        for key in ("done7", "waits7"):
            found = [
                deliveries.find_by_event(session, org_id, key),
                deliveries.list_deliveries(session, event_key=key)[0].id,
                api_reads.page(platform, api_reads.DELIVERIES, org_id, limit=50, equal={"event_key": key})["data"][0][
                    "id"
                ],
            ]
            assert len(set(found)) == 1
        assert not deliveries.kept_events(session, [(org_id, f"done{number}") for number in range(100)])


def clean_what_is_old(platform: Platform, org_id: Any) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(cleanup, "PIECE", 50)  # as little of this table as a piece is of ten million rows
        assert cleanup.clean_up(platform)["deliveries"] == OLD


@pytest.mark.parametrize(
    "hot",
    [skip, deliver, read_pages, tell_stories, find_by_event, clean_what_is_old],
    ids=["skip", "deliver", "pages", "stories", "events", "cleanup"],
)
def test_a_hot_query_reads_no_large_table_from_end_to_end(hot: Callable[[Platform, Any], None], full, people, platform):
    with explained(platform) as plans:
        hot(platform, people.salon.id)
    found = {f"{scan[0]} in {asked[:200]}" for asked, plan in plans.items() if (scan := _SCAN.search(plan))}
    assert not found
    assert any(re.search(r"Index\b.*Scan", plan) or "Insert on" in plan for plan in plans.values())


def test_a_piece_of_the_cleanup_is_the_next_of_what_ended_at_one_moment_and_sorts_nothing(full, people, platform):
    with explained(platform) as plans:
        clean_what_is_old(platform, people.salon.id)
    pieces = [plan for asked, plan in plans.items() if "piece AS" in asked and "'processed'" in asked]
    assert len(pieces) > 2 * OLD // 50  # of keys and of deliveries
    walk = re.compile(r"CTE piece\n\s*->  Limit\n\s*->  Index Scan using ix_deliveries_ended on webhook_delivery_log\b")
    assert not [plan for plan in pieces if not walk.search(plan)]


def read_and_take_all_of(session: Session, org_id: UUID) -> None:
    assert list(belongings.read_all(session, org_id))
    for table in belongings.tables():
        belongings.delete_piece(session, table, org_id, most=100)


def see_canaries(session: Session, _: UUID) -> None:
    canaries.last_planted(session, limit=3)
    canaries.last_processed(session)
    canaries.first_planted_after(session, 0)


def count(session: Session, org_id: UUID) -> None:
    inspected.count_deliveries(session, org_id)


@pytest.mark.parametrize("of_one", [read_and_take_all_of, see_canaries, count], ids=["belongings", "canaries", "count"])
def test_one_organizations_deliveries_are_found_among_those_of_others(
    of_one: Callable[[Session, UUID], None], full, people, platform
):
    with explained(platform) as plans, platform.database.transaction(system=True) as session:
        of_one(session, people.dental.id)
    of_deliveries = [plan for plan in plans.values() if _OF_DELIVERIES.search(plan)]
    assert any("ix_deliveries_listed" in plan for plan in of_deliveries)
    assert not [plan for plan in of_deliveries if _SCAN.search(plan)]


def test_an_event_is_looked_for_among_what_is_open_and_what_has_ended(full, people, platform):
    with explained(platform) as plans:
        find_by_event(platform, people.salon.id)
        tell_stories(platform, people.salon.id)
    used = [set(re.findall(r"ix_\w+", plan)) for asked, plan in plans.items() if re.search(r"event_key (=|IN)", asked)]
    assert len(used) > 10
    assert all({"ix_deliveries_event", "ix_deliveries_event_open"} <= indexes for indexes in used)


@pytest.fixture
def backlog(postgres, platform, database_urls, people) -> None:
    """20,000 events of one organization that are due, which came so quickly that no statistics know of them."""
    with superuser(postgres, database_urls.name) as cursor:
        cursor.execute(
            "INSERT INTO webhook_delivery_log (org_id, provider, type, event_key, lane_key, next_attempt_at)"
            " SELECT %s, 'test', 'probe', 'due' || i, 'due' || i, now() FROM generate_series(1, %s) i",
            (str(people.salon.id), MANY),
        )
        cursor.execute(
            "INSERT INTO lanes SELECT org_id, lane_key, now() FROM webhook_delivery_log WHERE status = 'received'"
        )


@pytest.mark.parametrize("handled", [True, False], ids=["claim", "sweep"])
def test_a_turn_takes_the_next_lanes_of_a_backlog_and_does_not_sort_all_of_it(handled, backlog, people, platform):
    def wait(_: Any) -> None:
        assert handled

    with pytest.MonkeyPatch.context() as monkeypatch, explained(platform) as plans:
        if handled:
            monkeypatch.setitem(handlers._HANDLERS, ("test", "probe"), wait)
        Drain(platform, threads=4).run(seconds=0.2, keep_going=lambda: len(plans) < 8)
    turns = [plan for asked, plan in plans.items() if "turn AS" in asked]
    assert turns
    assert all(re.search(r"Index Scan using ix_lanes_turn on lanes l\b", plan) for plan in turns)
    assert all(re.search(r"Limit\n\s*->  Index Scan using ix_lanes_due on lanes", plan) for plan in turns)
    assert not any(re.search(r"Bitmap Heap Scan on lanes|Sort Key: l\w*\.due_at", plan) for plan in turns)


@pytest.fixture
def analysed_while_empty(postgres, platform, database_urls, people) -> None:
    """What happens to the table of lanes: it was full, was emptied, and was analysed then; and the next burst comes."""
    with superuser(postgres, database_urls.name) as cursor:
        cursor.execute(
            "INSERT INTO lanes SELECT %s, 'old' || i, now() FROM generate_series(1, %s) i", (str(people.salon.id), MANY)
        )
        cursor.execute("DELETE FROM lanes")
        cursor.execute("ANALYZE lanes")


def plans_of_a_drain(platform: Platform, *, handled: bool, most: int) -> dict[str, str]:
    """Of the first ``most`` statements or some more, of events that a handler is there for, or none."""
    with pytest.MonkeyPatch.context() as monkeypatch, explained(platform) as plans:
        if handled:
            monkeypatch.setitem(handlers._HANDLERS, ("test", "probe"), lambda _: None)
        Drain(platform, threads=4).run(seconds=0.5, keep_going=lambda: len(plans) < most)
    return plans


@pytest.mark.parametrize("handled", [True, False], ids=["claim", "sweep"])
def test_each_lane_is_looked_up_for_itself_also_with_the_statistics_of_an_empty_table(
    handled, analysed_while_empty, backlog, people, platform
):
    plans = plans_of_a_drain(platform, handled=handled, most=30)
    of_lanes = {asked: plan for asked, plan in plans.items() if re.search(r"Scan.* on lanes\b", plan)}
    for part in ("claimed AS", "INSERT INTO delivery_attempts", "head AS MATERIALIZED"):
        assert any(part in asked for asked in of_lanes)
    assert not [asked[:200] for asked, plan in of_lanes.items() if _ALL_LANES.search(plan)]
    assert not [asked[:200] for asked, plan in of_lanes.items() if "ix_lanes_turn" in plan and "turn AS" not in asked]


@pytest.fixture(params=[MANY, 1], ids=["a quiet night", "the first day"])
def analysed_when_all_was_done(request, postgres, platform, database_urls, people) -> None:
    """Before a burst: PostgreSQL has seen no delivery that is open, and takes what has them for empty; or has seen one
    delivery in all, and takes an organization's for one."""
    with superuser(postgres, database_urls.name) as cursor:
        cursor.execute(
            "INSERT INTO webhook_delivery_log (org_id, provider, type, event_key, lane_key, status, finished_at)"
            " SELECT %s, 'test', 'probe', 'done' || i, 'done' || i, 'processed', now() FROM generate_series(1, %s) i",
            (str(people.salon.id), request.param),
        )
        cursor.execute("VACUUM ANALYZE")


@pytest.mark.parametrize("handled", [True, False], ids=["claim", "sweep"])
def test_nobody_reads_all_that_is_open_also_when_there_seems_to_be_nothing(
    handled, analysed_when_all_was_done, backlog, people, platform
):
    plans = plans_of_a_drain(platform, handled=handled, most=30)
    of_deliveries = {asked: plan for asked, plan in plans.items() if _OF_DELIVERIES.search(plan)}
    for part in ("claimed AS", "head AS MATERIALIZED", "begun AS" if handled else "able AS"):
        assert any(part in asked for asked in of_deliveries)
    assert not [asked[:300] for asked, plan in of_deliveries.items() if _ALL_DELIVERIES.search(plan)]


def test_an_ending_reads_only_what_has_ended_also_in_a_small_inbox(backlog, people, platform, postgres, database_urls):
    with superuser(postgres, database_urls.name) as cursor:
        cursor.execute(
            "INSERT INTO delivery_attempts (org_id, delivery_id, number, lane_token, process, ended_at, outcome)"
            " SELECT org_id, id, 1, 1, 'earlier', now(), 'retry' FROM webhook_delivery_log"
        )
        cursor.execute("ANALYZE")
    plans = plans_of_a_drain(platform, handled=True, most=40)
    ended = {asked: plan for asked, plan in plans.items() if "jsonb_to_recordset" in asked and "UPDATE" in asked}
    assert len(ended) > 1
    assert not [asked[:200] for asked, plan in ended.items() if _SCAN.search(plan)]


@pytest.mark.parametrize("together", [1, 20])
def test_intake_reads_no_large_table_from_end_to_end(together, full, people, platform, postgres, database_urls):
    """Its statements are a function's, which the server explains itself; seven times, because it keeps a plan then."""
    connection = psycopg2.connect(postgres.superuser_url(database_urls.name))
    connection.notices = deque()  # a list would be kept short by psycopg2
    with connection.cursor() as cursor:
        cursor.execute(
            "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;"
            f" SET auto_explain.log_level = notice; SET ROLE {platform.database.roles.intake}"
        )
        for turn in range(7):
            events = [probe(people.salon.id, f"{turn}, {number}") for number in range(together)]
            cursor.execute(inbox._WEBHOOKS_MESSAGE, inbox.values_of(events))
            assert len(cursor.fetchall()) == together
    plans = "".join(connection.notices)
    connection.close()
    assert plans.count("Insert on webhook_delivery_log") >= 7
    assert not _SCAN.search(plans)
