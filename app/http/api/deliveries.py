"""Deliveries for programs: looked up, and delivered once more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.http.api import questions, schemas
from app.http.api.operations import Answered, Asked, operation
from app.services import api_reads, replay
from app.services.api_keys import READ, WRITE

ONE = f"/deliveries/<int(max={api_reads.LARGEST_ID}):delivery_id>"


@operation("GET", "/deliveries", scope=READ, query=questions.DeliveriesQuery, answer=schemas.DeliveryPage)
def list_deliveries(asked: Asked) -> Mapping[str, Any]:
    """Deliveries, the newest first"""
    equal = asked.query.model_dump(include={"status", "provider", "type"})
    equal["event_key"] = asked.query.event_id
    return api_reads.page(asked.platform, api_reads.DELIVERIES, asked.caller.org_id, equal=equal, **asked.stretch)


@operation("GET", ONE, scope=READ, answer=schemas.DeliveryInFull, problems=(404,))
def show_delivery(asked: Asked, delivery_id: int) -> Mapping[str, Any]:
    """One delivery with its attempts and its payload"""
    return api_reads.delivery(asked.platform, asked.caller.org_id, delivery_id)


@operation("POST", f"{ONE}/replay", scope=WRITE, answer=schemas.Replayed, statuses=(202,), problems=(404, 409))
def replay_delivery(asked: Asked, delivery_id: int) -> Answered:
    """Deliver a finished one once more; effects that are recorded are not repeated"""
    done = replay.replay(asked.platform, delivery_id, actor=asked.actor, org_id=asked.caller.org_id)
    return Answered(done, 202)
