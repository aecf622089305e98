"""Which service handles which type of event: the whole list, in one place.

Owns nothing but the list and the few lines between a delivery and a service. A type that is not
here is stored and skipped: providers add types without notice.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from app.errors import CircuitOpen, DatabaseUnavailable, ProviderUnavailable, TemporaryFailure
from app.integrations.doors import DOORS
from app.models.calendars import note_channel
from app.models.deliveries import INTERNAL_PROVIDER
from app.services import (
    calendar_channels,
    calendar_erasure,
    calendar_sync,
    calls,
    canary,
    forwarding,
    late_asks,
    message_checks,
    messages,
    reminders,
    text_dialogue,
)
from app.services.calendar_push import Pusher
from app.services.delivery import SCHEDULE, Handler, LeaseLost, Postponed, Skip, Work, skip_unhandled
from app.services.own_work import OwnWork


def find_handler(provider: str, event_type: str) -> Handler:
    """The handler of an event's type; one that hands a front door's events on, or skips, when there is none."""
    default = forwarding.hand_on if provider in DOORS else skip_unhandled
    return _HANDLERS.get((provider, event_type), default)


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
    except (CircuitOpen, DatabaseUnavailable, LeaseLost, Postponed):
        raise
    except TemporaryFailure as error:
        probing = isinstance(error, ProviderUnavailable) and error.probing  # costs no try either
        if work.delivery.attempts >= len(SCHEDULE) and not probing:
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
    ("vapi", "tool-calls"): late_asks.do,
    ("twilio", "message.inbound"): text_dialogue.receive,
    ("twilio", "message.status"): _receive_status,
    ("google-calendar", "calendar.sync"): _note_calendar,
    ("google-calendar", "calendar.changed"): _note_calendar,
    (INTERNAL_PROVIDER, OwnWork.SEND_MESSAGE): messages.send,
    (INTERNAL_PROVIDER, OwnWork.CHECK_MESSAGE): message_checks.check,
    (INTERNAL_PROVIDER, canary.TYPE): canary.arrive,
    (INTERNAL_PROVIDER, OwnWork.FINISH_APPOINTMENT): _finish_appointment,
    (INTERNAL_PROVIDER, OwnWork.REMIND): reminders.remind,
    (INTERNAL_PROVIDER, OwnWork.SYNC_CALENDAR): calendar_sync.sync,
    (INTERNAL_PROVIDER, OwnWork.FORWARD_EVENT): forwarding.send,
    (INTERNAL_PROVIDER, OwnWork.WATCH_CALENDAR): calendar_channels.attend,
    (INTERNAL_PROVIDER, OwnWork.ERASE_FROM_CALENDAR): calendar_erasure.erase_event,
}
