"""Deliveries that stand for any: stored as intake does, each in a lane of its own, for a handler of the test's."""

from __future__ import annotations

from uuid import UUID, uuid4

from app.models.inbox import NewDelivery, insert_webhooks
from app.services.platform import Platform


def put_probes(platform: Platform, org_id: UUID, *lanes: str) -> None:
    """One delivery of provider ``test``, type ``probe``, in each lane; its event key is the lane's."""
    with platform.database.intake() as session:
        insert_webhooks(
            session,
            [
                NewDelivery(
                    org_id=org_id,
                    integration_id=uuid4(),
                    provider="test",
                    type="probe",
                    event_key=lane,
                    lane_key=lane,
                    payload={},
                )
                for lane in lanes
            ],
        )
