"""Deliveries that stand for any: stored as intake does, each in a lane of its own, for a handler of the test's."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from app.models.inbox import NewDelivery, insert_webhooks
from app.services.platform import Platform


def probe(org_id: UUID, key: str, **values: Any) -> NewDelivery:
    """One of provider ``test``, type ``probe``, in a lane of its key's name, unless ``values`` say otherwise."""
    usual = {"integration_id": uuid4(), "provider": "test", "type": "probe", "lane_key": key, "payload": {}}
    return NewDelivery(org_id=org_id, event_key=key, **{**usual, **values})


def put_probes(platform: Platform, org_id: UUID, *lanes: str) -> None:
    """One delivery in each lane; its event key is the lane's."""
    with platform.database.intake() as session:
        insert_webhooks(session, [probe(org_id, lane) for lane in lanes])
