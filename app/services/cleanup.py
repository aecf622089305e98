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

_KEYS = """
DELETE FROM processed_webhook_events p USING (
    SELECT d.integration_id, d.event_key FROM webhook_delivery_log d
    JOIN processed_webhook_events k USING (integration_id, event_key)
    WHERE d.finished_at < now() - interval '24 hours' AND d.status IN ('processed', 'skipped') LIMIT :batch
) old WHERE p.integration_id = old.integration_id AND p.event_key = old.event_key
"""
_DELIVERIES = """
DELETE FROM webhook_delivery_log d USING (
    SELECT id, org_id FROM webhook_delivery_log
    WHERE (status IN ('processed', 'skipped') AND finished_at < now() - interval '7 days')
       OR (status = 'dead' AND finished_at < now() - interval '30 days') LIMIT :batch
) old WHERE d.id = old.id AND d.org_id = old.org_id
"""
_DEAD_KEYS = """
DELETE FROM processed_webhook_events p USING (
    SELECT k.integration_id, k.event_key FROM webhook_delivery_log d
    JOIN processed_webhook_events k USING (integration_id, event_key)
    WHERE d.status = 'dead' AND d.finished_at < now() - interval '29 days' LIMIT :batch
) old WHERE p.integration_id = old.integration_id AND p.event_key = old.event_key
"""
_ANSWERS = """
DELETE FROM tool_answers a USING (
    SELECT org_id, call_id, tool_call_id FROM tool_answers WHERE started_at < now() - interval '30 days' LIMIT :batch
) old WHERE (a.org_id, a.call_id, a.tool_call_id) = (old.org_id, old.call_id, old.tool_call_id)
"""
# Keys before deliveries: a key whose delivery has gone could not be told from one still needed.
STEPS = {"keys": _KEYS, "dead_keys": _DEAD_KEYS, "deliveries": _DELIVERIES, "answers": _ANSWERS}

log = get_logger(__name__)


def clean_up(platform: Platform) -> dict[str, int]:
    """Delete all that is due to go, a thousand rows a transaction; returns how many of each. Safe to repeat."""
    gone = dict.fromkeys(STEPS, 0)
    for name, statement in STEPS.items():
        for _ in range(MOST_BATCHES):
            with platform.database.transaction(system=True) as session:
                deleted = session.execute(text(statement), {"batch": BATCH}).rowcount  # type: ignore[attr-defined]
            gone[name] += deleted
            if deleted < BATCH:
                break
    log.info("cleanup.done", **gone)
    return gone
