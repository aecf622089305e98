"""Deletes what is finished and old, in small batches. Never an event that is not finished.

Owns how long things are kept. A dedup key goes 24 hours after its delivery was *finished*: retries
alone may take longer than a day, and a duplicate in that time must still be known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from app.observability.logging import get_logger

if TYPE_CHECKING:
    from app.services.platform import Platform

BATCH = 1000
MOST_BATCHES = 100

# The window keeps each run small however long deliveries are kept; a key that slips through it (no
# cleanup ran for a day) goes with its delivery.
_KEYS = """
WITH old AS (
    SELECT d.integration_id, d.event_key FROM webhook_delivery_log d
    JOIN processed_webhook_events p USING (integration_id, event_key)
    WHERE d.finished_at BETWEEN now() - interval '48 hours' AND now() - interval '24 hours'
      AND d.status IN ('processed', 'skipped') LIMIT :batch
), gone AS (
    DELETE FROM processed_webhook_events k USING old o
    WHERE k.integration_id = o.integration_id AND k.event_key = o.event_key RETURNING 1
)
SELECT count(*) FROM gone
"""
_DELIVERIES = """
WITH gone AS (
    DELETE FROM webhook_delivery_log WHERE (id, org_id) IN (
        SELECT id, org_id FROM webhook_delivery_log
        WHERE finished_at < now() - interval '7 days'
          AND (status IN ('processed', 'skipped') OR finished_at < now() - interval '30 days') LIMIT :batch)
    RETURNING integration_id, event_key
), keys AS (
    DELETE FROM processed_webhook_events k USING gone g
    WHERE k.integration_id = g.integration_id AND k.event_key = g.event_key
)
SELECT count(*) FROM gone
"""
_ANSWERS = """
WITH old AS (
    SELECT org_id, call_id, tool_call_id FROM tool_answers WHERE started_at < now() - interval '30 days' LIMIT :batch
), gone AS (
    DELETE FROM tool_answers a USING old o
    WHERE (a.org_id, a.call_id, a.tool_call_id) = (o.org_id, o.call_id, o.tool_call_id) RETURNING 1
)
SELECT count(*) FROM gone
"""
STEPS = {"keys": _KEYS, "deliveries": _DELIVERIES, "answers": _ANSWERS}

log = get_logger(__name__)


def clean_up(platform: Platform) -> dict[str, int]:
    """Delete all that is due to go, a thousand rows a transaction; returns how many of each. Safe to repeat."""
    gone = dict.fromkeys(STEPS, 0)
    for name, statement in STEPS.items():
        for _ in range(MOST_BATCHES):
            with platform.database.transaction(system=True) as session:
                deleted = int(session.execute(text(statement), {"batch": BATCH}).scalar_one())
            gone[name] += deleted
            if deleted < BATCH:
                break
    log.info("cleanup.done", **gone)
    return gone
