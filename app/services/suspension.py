"""What a suspended organization's deliveries come to: they wait, without spending an attempt, until it is resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from app.models.attempts import resumption_of
from app.models.deliveries import CANARY_ORG_ID
from app.models.recorded import Ending

if TYPE_CHECKING:
    from app.services.platform import Platform

LOOK_AGAIN_SECONDS = 300.0  # resuming wakes what waits; this is for what it has missed


def wait_if_suspended(platform: Platform, org_id: UUID) -> Ending | None:
    """How an attempt ends before it begins; None when the organization is not suspended."""
    if org_id == CANARY_ORG_ID:
        return None
    business = platform.directory.find_business(org_id)
    if business is None or business.suspended_at is None:
        return None
    waiting_on = resumption_of(org_id)
    return Ending(
        "retrying",
        "waiting",
        delay_seconds=LOOK_AGAIN_SECONDS,
        counts=False,
        waiting_on=waiting_on,
        error_code="suspended",
    )
