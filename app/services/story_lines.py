"""How a story is worded: one line for each thing that happened, in order of time. Owns the words, and no query."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.services.story import _Found

Row = dict[str, Any]
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)


def tell(found: _Found) -> list[Row]:
    """All lines, each ``at``, ``org_id``, ``what`` (a word or two) and ``told``."""
    lines = [
        # First: an attempt ends in the moment in which its delivery does, and is told before it.
        *(line for row in found.attempts for line in _attempt(row)),
        *(line for row in found.deliveries.values() for line in _delivery(row, found.payloads.get(row["id"], {}))),
        *(line for row in found.calls.values() for line in _call(row, with_transcript=found.with_transcript)),
        *(line for row in found.answers.values() for line in _answer(row)),
        *(line for row in found.appointments.values() for line in _appointment(row)),
        *(line for row in found.messages.values() for line in _message(row)),
        *(_opt_out(row) for row in found.opt_outs),
        *(_action(row) for row in found.actions),
    ]
    return sorted(lines, key=lambda line: line["at"] or _NEVER)


def _line(row: Row, at: datetime | None, what: str, *parts: str | None) -> Row:
    return {"at": at, "org_id": row["org_id"], "what": what, "told": ", ".join(part for part in parts if part)}


def _delivery(row: Row, said: Row) -> Iterator[Row]:
    title = f"{row['provider']} {row['type']} (delivery {row['id']})"
    if row["integration_id"] is None:
        yield _line(row, row["received_at"], "planned", title)
    else:
        happened = row["occurred_at"] and f"happened {row['occurred_at']:%H:%M:%S}"
        yield _line(row, row["received_at"], "received", f"{title}, verified", f"event {row['event_key']}", happened)
    if said.get("answer") is not None:
        yield _line(row, row["received_at"], "answered", f"delivery {row['id']}, while the caller waited")
    if row["set_aside_at"]:
        yield _line(row, row["set_aside_at"], "set aside", f"delivery {row['id']}: those behind it went on")
    if row["finished_at"]:
        yield _line(row, row["finished_at"], row["status"], title, row["error_code"], row["note"])
    else:
        waits = row["waiting_on"] and f"waits for {row['waiting_on']}"
        yield _line(row, None, f"still {row['status']}", title, waits, row["error_code"])


def _attempt(row: Row) -> Iterator[Row]:
    name = f"attempt {row['number']}"
    yield _line(row, row["started_at"], name, f"delivery {row['delivery_id']}", f"by {row['process']}")
    if row["ended_at"]:
        took = f"{row['duration_ms']} ms" if row["duration_ms"] is not None else None
        told = (row["outcome"], took, row["error_code"], row["error"])
        yield _line(row, row["ended_at"], f"{name} ended", f"delivery {row['delivery_id']}", *told)


def _call(row: Row, *, with_transcript: bool) -> Iterator[Row]:
    title = f"call {row['vapi_call_id']}"
    parties = f"{row['customer_number'] or 'web'} to {row['dialled_number'] or '-'}"
    yield _line(row, row["started_at"] or row["created_at"], "call began", title, parties)
    if row["ended_at"] or row["status"] == "ended":
        length = f"{row['duration_seconds']} s" if row["duration_seconds"] is not None else None
        cost = f"${row['cost']}" if row["cost"] is not None else None
        yield _line(row, row["ended_at"] or row["updated_at"], "call ended", title, row["ended_reason"], length, cost)
    said_at = row["reported_at"] or row["ended_at"] or row["updated_at"]
    if row["summary"]:
        yield _line(row, said_at, "summary", row["summary"])
    if with_transcript and row["transcript"]:
        yield _line(row, said_at, "transcript", row["transcript"])


def _answer(row: Row) -> Iterator[Row]:
    title = f"{row['name']} (tool call {row['tool_call_id']})"
    yield _line(row, row["started_at"], "asked", title)
    if row["answered_at"]:
        yield _line(row, row["answered_at"], "said", f"{row['name']}: {row['result']}")


def _appointment(row: Row) -> Iterator[Row]:
    title = f"appointment {row['id']}"
    when = f"{row['starts_at']:%Y-%m-%d %H:%M}Z for {row['name']}"
    yield _line(row, row["created_at"], "appointment made", title, when)
    left = row["calendar_action"] and f"the calendar still has to {row['calendar_action']} it"
    event = row["google_event_id"] and f"calendar event {row['google_event_id']}"
    conflict = "conflicts with what somebody entered" if row["external_conflict"] else None
    yield _line(row, row["updated_at"], f"appointment {row['status']}", title, event, left, conflict, row["failure"])


def _message(row: Row) -> Iterator[Row]:
    title = f"{row['channel']} {row['id']}"
    if row["direction"] == "inbound":
        yield _line(row, row["created_at"], "text in", f"{title} from {row['remote_address']}: {row['body']}")
        return
    yield _line(row, row["created_at"], "text planned", f"{title} to {row['remote_address']}: {row['body']}")
    if row["sends"] and row["sending_since"]:
        yield _line(row, row["sending_since"], "outbound call", f"{title} to Twilio, send {row['sends']}")
    if row["looked_up_at"]:
        yield _line(row, row["looked_up_at"], "outbound call", f"{title} looked up at Twilio, time {row['lookups']}")
    sid = row["provider_sid"] and f"SID {row['provider_sid']}"
    yield _line(row, row["updated_at"], f"text {row['status']}", title, sid, row["error_code"], row["error"])


def _opt_out(row: Row) -> Row:
    word = "wants no texts" if row["opted_out"] else "wants texts"
    return _line(row, row["changed_at"], word, f"{row['address']}, by {row['source']}")


def _action(row: Row) -> Row:
    return _line(row, row["at"], "operator", f"{row['actor']}: {row['action']} of {row['subject']}")
