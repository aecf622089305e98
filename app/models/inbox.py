"""How events get in: lanes, then dedup, deliveries, payloads, consent and books, in one message to the server.

Owns how an event is told to the database. What comes from outside is stored by the function ``accept_webhooks``
(migration 0012), what the house gives itself by two statements of the same order, which is the order of a lane: the
lane row is locked before the delivery ids are drawn, both sorted by key (or two groups would deadlock), so that
within a lane id order is commit order. No ORM object here: this is the hot path.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

from app.database import Database
from app.database.at_once import message_of


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """One event to be stored. ``status`` other than ``received`` means that nobody is to handle it.

    ``parked``: it gets no lane, so that nobody claims it.
    ``due_after``: so long from now, by the database's clock; only of work the house gives itself.
    ``received_at``: when it came in, if that was not now; no later than now by the database's clock.
    ``integration_id`` is None for work the house gives itself: then ``event_key`` is not deduplicated.
    """

    org_id: UUID
    provider: str
    type: str
    event_key: str
    lane_key: str
    payload: dict[str, Any] | None
    integration_id: UUID | None = None
    occurred_at: datetime | None = None
    received_at: datetime | None = None
    due_at: datetime | None = None
    due_after: timedelta | None = None
    raw: bytes | None = None
    answer: dict[str, Any] | None = None
    status: str = "received"
    parked: bool = False
    error_code: str | None = None
    note: str | None = None
    consent_address: str | None = None
    opted_out: bool | None = None


_LANES = """
INSERT INTO lanes (org_id, lane_key, due_at)
SELECT DISTINCT ON (org_id, lane_key) org_id, lane_key, coalesce(due_at, now() + make_interval(secs => due_after))
FROM jsonb_to_recordset(CAST(:lanes AS jsonb)) AS l(org_id uuid, lane_key text, due_at timestamptz, due_after float8)
ORDER BY org_id, lane_key, coalesce(due_at, now() + make_interval(secs => due_after))
ON CONFLICT (org_id, lane_key) DO UPDATE SET due_at = now() WHERE lanes.due_at IS NULL
"""  # the WHERE is never true; it is there because a false one still locks the row

# The first side of the books is a row a group, organization and provider, counted from what came in, not from the rows
# it became. What is stored as ended already has its ending beside it.
_OWN_WORK = """
WITH input AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS e(
        ord int, org_id uuid, integration_id uuid, provider text, type text, event_key text, lane_key text,
        occurred_at timestamptz, received_at timestamptz, due_at timestamptz, due_after float8, status text,
        error_code text, note text, payload jsonb)
), booked AS (
    INSERT INTO ledger_entries (org_id, provider, accepted, processed, dead, skipped)
    SELECT i.org_id, i.provider, count(*), count(*) FILTER (WHERE i.status = 'processed'),
           count(*) FILTER (WHERE i.status = 'dead'), count(*) FILTER (WHERE i.status = 'skipped')
    FROM input i GROUP BY i.org_id, i.provider
), logged AS (
    INSERT INTO webhook_delivery_log (org_id, integration_id, provider, type, event_key, lane_key, status, occurred_at,
        next_attempt_at, finished_at, error_code, note, received_at)
    SELECT i.org_id, i.integration_id, i.provider, i.type, i.event_key, i.lane_key, i.status, i.occurred_at,
        coalesce(i.due_at, now() + make_interval(secs => i.due_after)),
        CASE WHEN i.status <> 'received' THEN now() END, i.error_code, i.note, least(i.received_at, now())
    FROM input i ORDER BY i.ord RETURNING id, org_id, event_key
), stored AS (
    INSERT INTO webhook_payloads (delivery_id, org_id, body) SELECT l.id, l.org_id, i.payload
    FROM logged l JOIN input i USING (org_id, event_key)
)
SELECT id FROM logged
"""

# Built once: SQLAlchemy reads a text for its parameters each time it is made.
_STORE_WEBHOOKS = text("SELECT * FROM accept_webhooks(CAST(:lanes AS jsonb), CAST(:events AS jsonb))")
STORE_OWN_WORK = f"{_LANES};{_OWN_WORK}"  # with the values of ``values_of``; for who stores more in the same message
_STORE_OWN_WORK = text(STORE_OWN_WORK)
_WEBHOOKS_MESSAGE = message_of(_STORE_WEBHOOKS)


def insert_webhooks(session: Session, events: Sequence[NewDelivery]) -> dict[tuple[UUID, str], int]:
    """Store what is new among ``events``; return the delivery id of each that was, by integration and key.

    A key that is missing from the result had been stored before. Keys must differ within ``events``.
    """
    return {(row[0], row[1]): row[2] for row in _store(session, _STORE_WEBHOOKS, events)}


def insert_webhooks_at_once(
    database: Database, events: Sequence[NewDelivery], *, lock_timeout_ms: int | None = None
) -> dict[tuple[UUID, str], int]:
    """The same in a transaction of its own, which is one message to the server. Raises DatabaseUnavailable.

    A key that is missing may also have been stored by this very call, on a connection that broke.
    """
    rows = database.intake_at_once(_WEBHOOKS_MESSAGE, values_of(events), lock_timeout_ms=lock_timeout_ms)
    return {(integration_id, key): delivery_id for integration_id, key, delivery_id in rows}


def insert_own_work(session: Session, work: Sequence[NewDelivery]) -> list[int]:
    """Store work the house gives itself, in the caller's transaction: it exists if and only if that commits."""
    return [row[0] for row in _store(session, _STORE_OWN_WORK, work)]


def _store(session: Session, statement: TextClause, events: Sequence[NewDelivery]) -> Sequence[Any]:
    """In one message; of two statements the answer is the second's, whose snapshot is taken under the lanes' locks."""
    return session.execute(statement, values_of(events)).all()


def values_of(events: Sequence[NewDelivery]) -> dict[str, str]:
    """As the statements want them."""
    lanes = [
        {
            "org_id": str(event.org_id),
            "lane_key": event.lane_key,
            "due_at": _iso(event.due_at),
            "due_after": _seconds(event.due_after),
        }
        for event in events
        if event.status == "received" and not event.parked
    ]
    return {"lanes": orjson.dumps(lanes).decode(), "events": _as_json(events)}


def _as_json(events: Sequence[NewDelivery]) -> str:
    return orjson.dumps(
        [
            {
                "ord": number,
                "org_id": str(event.org_id),
                "integration_id": str(event.integration_id) if event.integration_id else None,
                "provider": event.provider,
                "type": event.type,
                "event_key": event.event_key,
                "lane_key": event.lane_key,
                "occurred_at": _iso(event.occurred_at),
                "received_at": _iso(event.received_at),
                "due_at": _iso(event.due_at),
                "due_after": _seconds(event.due_after),
                "status": event.status,
                "error_code": event.error_code,
                "note": event.note,
                "payload": event.payload,
                "raw": base64.b64encode(event.raw).decode() if event.raw is not None else None,
                "answer": event.answer,
                "consent_address": event.consent_address,
                "opted_out": event.opted_out,
            }
            for number, event in enumerate(events)
        ]
    ).decode()


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _seconds(after: timedelta | None) -> float:
    return after.total_seconds() if after is not None else 0.0
