"""Asks Twilio about a text whose callbacks never came.

Owns when a text that is only `sent` is asked about. Twilio repeats a status callback once at most, so a
web process that was down for three seconds has missed it for good.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import func, select

from app.models import messages as rows
from app.models.inbox import NewDelivery
from app.models.messages import MessageStatus
from app.services import own_work
from app.services.delivery import Postponed, Skip, Work
from app.services.message_settling import LOOK_UP_TIMEOUT_SECONDS, apply_status, twilio_of
from app.services.own_work import OwnWork

if TYPE_CHECKING:
    from app.services.platform import Platform

LAST_CHECK_AFTER = timedelta(minutes=15)  # some carriers never report; `sent` is then the last word


def check_of(platform: Platform, org_id: UUID, message_id: UUID) -> NewDelivery:
    """To ask later, stored by whatever learns the SID; a lane of its own, because nothing waits for it."""
    return own_work.delivery_of(
        org_id,
        OwnWork.CHECK_MESSAGE,
        lane_key=f"check:{message_id}",
        payload={"message_id": str(message_id)},
        after=timedelta(seconds=platform.settings.status_check_seconds),
    )


def check(work: Work) -> Skip | None:
    """Handler of ``message.check``: ask for the status if no callback has told it; once soon, once late."""
    platform, org_id = work.platform, work.delivery.org_id
    message_id = UUID((work.delivery.body or {})["message_id"])
    with platform.database.transaction(org_id) as session:
        message = rows.lock_message(session, org_id, message_id)
    if message is None or message.status != MessageStatus.SENT or message.provider_sid is None:
        return Skip("its callbacks have told")
    _, credentials = twilio_of(platform, org_id)
    known = platform.twilio.fetch(
        credentials, message.provider_sid, channel=message.channel, timeout_seconds=LOOK_UP_TIMEOUT_SECONDS
    )
    with platform.database.transaction(org_id) as session:
        row = rows.lock_message(session, org_id, message_id)
        if row is None:
            return None
        apply_status(session, row, known.status, known.error_code)
        settled = row.status != MessageStatus.SENT
        waited = session.execute(select(func.now())).scalar_one() - work.delivery.received_at
    if not settled and waited < LAST_CHECK_AFTER:
        raise Postponed("Twilio has no news of it yet", after=min(LAST_CHECK_AFTER, LAST_CHECK_AFTER - waited))
    return None
