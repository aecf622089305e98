"""A day's calls and texts read no more because of all the calls, texts and appointments that there were before.

What each statement has read is the server's own account (auto_explain), so plans count as they are carried out, also
those within functions, and those that statistics of another day lead to.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from tests.conftest import superuser
from tests.people import Business

EARLIER = 20_000
MUCH = 1_000  # rows that one step of one statement reads or throws away
# How the rows of earlier days differ from the one they are copies of, by table.
DIFFERENT = {
    "calls": "'id', gen_random_uuid(), 'vapi_call_id', 'call' || i, 'customer_number', '+49151' || 10000000 + i,"
    " 'created_at', now() - i * interval '1 minute'",
    "messages": "'id', gen_random_uuid(), 'provider_sid', 'SM' || i, 'idempotency_key', 'key' || i, 'status',"
    " 'delivered', 'remote_address', '+49151' || 10000000 + i, 'created_at', now() - i * interval '1 minute'",
    "appointments": "'id', gen_random_uuid(), 'call_id', 'call' || i, 'phone', '+49151' || 10000000 + i, 'status',"
    " 'booked', 'starts_at', now() - i * interval '1 hour', 'ends_at', now() - i * interval '1 hour' + interval '20m'",
    "tool_answers": "'call_id', 'call' || i, 'started_at', now() - i * interval '1 minute'",
    "opt_outs": "'address', '+49151' || 10000000 + i",
    "processed_webhook_events": "'event_key', 'event' || i",
}
DUE = text("SELECT lane_key FROM lanes WHERE due_at <= now()")


def a_day(salon: Business, client, settle, customer: str, *, hour: int) -> None:
    """A call that books, moves, cancels and books again, and texts, until all of it is done."""
    start = (datetime.now(UTC) + timedelta(days=3)).replace(hour=hour, minute=0, second=0, microsecond=0)
    call = {"id": f"call-of-{customer}", "customer": {"number": customer}}
    salon.vapi(client, {"type": "assistant-request", "call": call})
    salon.vapi(client, {"type": "status-update", "status": "in-progress", "call": call})
    asked = {"call_id": call["id"], "phone": customer}
    salon.tool(client, "check_availability", call_id=call["id"], start=start.isoformat())
    salon.tool(client, "book_appointment", **asked, start=start.isoformat(), name="Ada")
    salon.tool(client, "reschedule_appointment", **asked, new_start=(start + timedelta(hours=1)).isoformat())
    salon.tool(client, "cancel_appointment", **asked)
    salon.tool(client, "book_appointment", **asked, start=start.isoformat(), name="Ada")
    salon.tool(client, "send_text", **asked, text="See you")
    salon.vapi(client, {"type": "end-of-call-report", "transcript": "User: hi", "artifact": {}, "call": call})
    for body in ("Can I come later?", "C", "STOP", "START"):
        salon.text(client, customer, body)
    ask = salon.platform.database.at_once(salon.id).execute
    settle(lambda: not ask(DUE, {}).all())


@pytest.mark.parametrize("analysed", ["on the first day", "lately"])
def test_a_day_reads_little_of_all_the_days_before(analysed, account, people, client, settle, postgres, database_urls):
    a_day(people.salon, client, settle, "+4915119990001", hour=8)
    with superuser(postgres, database_urls.name) as cursor:
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("SET session_replication_role = replica; SET auto_explain.log_min_duration = -1")
        for table, different in DIFFERENT.items():
            cursor.execute(
                "SELECT string_agg(attname, ','), string_agg('(new).' || attname, ',') FROM pg_attribute"
                f" WHERE attrelid = '{table}'::regclass AND attnum > 0 AND attgenerated = '' AND NOT attisdropped"
            )
            ((names, values),) = cursor.fetchall()
            cursor.execute(
                f"INSERT INTO {table} ({names}) SELECT {values} FROM (SELECT jsonb_populate_record(t,"
                f" jsonb_build_object({different})) AS new FROM {table} t, generate_series(1, {EARLIER}) i"
                f" WHERE t.ctid = (SELECT max(ctid) FROM {table})) copies"
            )
        if analysed == "lately":
            cursor.execute("ANALYZE")
    account.begin()
    a_day(people.salon, client, settle, "+4915119990002", hour=12)
    read = [(table, rows, said.asked) for said in account.statements() for table, rows in said.readings()]
    assert {"messages", "appointments", "tool_answers", "opt_outs"} <= {table for table, _, _ in read}
    assert not [(table, rows, asked[:300]) for table, rows, asked in read if rows > MUCH]
