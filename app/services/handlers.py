"""Which service handles which type of event: the whole list, in one place.

Owns nothing but the list and the few lines between a delivery and a service. A type that is not
here is stored and skipped: providers add types without notice.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from app.errors import CircuitOpen, DatabaseUnavailable, TemporaryFailure
from app.models.appointments import lock_next
from app.models.calendars import note_channel
from app.models.deliveries import INTERNAL_PROVIDER
from app.services import (
    calendar_channels,
    calendar_erasure,
    calendar_sync,
    calls,
    canary,
    message_checks,
    messages,
    texts,
)
from app.services.appointments import cancel_locked
from app.services.calendar_push import Pusher
from app.services.delivery import SCHEDULE, Handler, LeaseLost, Skip, Work
from app.services.own_work import OwnWork

CANCEL_WORDS = {"c", "cancel"}


def find_handler(provider: str, event_type: str) -> Handler:
    """The handler of an event's type; one that skips when there is none."""
    return _HANDLERS.get((provider, event_type), _skip_unknown)


def _skip_unknown(_: Work) -> Skip:
    return Skip("no handler for this type")


def _receive_text(work: Work) -> Skip | None:
    """A text came in: store it; ``C`` or the word cancels the next appointment, and is answered."""
    org_id = work.delivery.org_id
    business = work.platform.directory.business(org_id)
    with work.platform.database.transaction(org_id) as session:
        message = messages.record_inbound(session, work)
        if message is None:
            return Skip("this text was stored before")
        if message.body.strip().strip(".!").casefold() in CANCEL_WORDS:
            upcoming = lock_next(session, org_id, message.remote_address, now=datetime.now(UTC))
            if upcoming is not None:
                upcoming.channel = message.channel
                cancel_locked(session, business, upcoming)
            else:
                messages.plan_text(
                    session,
                    org_id,
                    to=message.remote_address,
                    body=texts.nothing_to_cancel(business.name),
                    channel=message.channel,
                    idempotency_key=f"reply:{message.id}",
                    purpose="reply",
                )
    work.platform.bell.ring()
    return None


def _receive_status(work: Work) -> Skip | None:
    """Twilio reports on a text of ours."""
    reason = messages.record_status(work)
    return Skip(reason) if reason else None


def _finish_appointment(work: Work) -> None:
    """Bring the calendar in line, whoever began it and however it ended; after the last try hold nothing."""
    business = work.platform.directory.business(work.delivery.org_id)
    appointment_id = UUID((work.delivery.body or {})["appointment_id"])
    pusher = Pusher(work.platform, business, confirm=work.confirm)
    try:
        pusher.push(appointment_id)
    except (CircuitOpen, DatabaseUnavailable, LeaseLost):
        raise
    except TemporaryFailure as error:
        if work.delivery.attempts >= len(SCHEDULE):
            pusher.give_up(appointment_id, error.code)
        raise


def _note_calendar(work: Work) -> Skip | None:
    """Google says: go and sync. Remember that the channel spoke, and plan the sync; many become one."""
    body = work.delivery.body or {}
    assert work.delivery.integration_id is not None
    expires = body.get("expiration")
    with work.platform.database.transaction(work.delivery.org_id) as session:
        noted = note_channel(
            session,
            work.delivery.org_id,
            work.delivery.integration_id,
            channel_id=body["channel_id"],
            resource_id=body["resource_id"],
            expires_at=datetime.fromisoformat(expires) if expires else None,
            heard=True,
        )
        if noted and body["resource_state"] != "sync":
            calendar_sync.request(session, work.delivery.org_id, work.delivery.integration_id)
    work.platform.bell.ring()
    return None if noted else Skip("the channel is known for another resource")


_HANDLERS: dict[tuple[str, str], Handler] = {
    ("vapi", "status-update"): calls.record_status,
    ("vapi", "end-of-call-report"): calls.record_report,
    ("twilio", "message.inbound"): _receive_text,
    ("twilio", "message.status"): _receive_status,
    ("google-calendar", "calendar.sync"): _note_calendar,
    ("google-calendar", "calendar.changed"): _note_calendar,
    (INTERNAL_PROVIDER, OwnWork.SEND_MESSAGE): messages.send,
    (INTERNAL_PROVIDER, OwnWork.CHECK_MESSAGE): message_checks.check,
    (INTERNAL_PROVIDER, canary.TYPE): canary.arrive,
    (INTERNAL_PROVIDER, OwnWork.FINISH_APPOINTMENT): _finish_appointment,
    (INTERNAL_PROVIDER, OwnWork.SYNC_CALENDAR): calendar_sync.sync,
    (INTERNAL_PROVIDER, OwnWork.WATCH_CALENDAR): calendar_channels.attend,
    (INTERNAL_PROVIDER, OwnWork.ERASE_FROM_CALENDAR): calendar_erasure.erase_event,
}
