"""What the business itself is told by text: bookings, changes, and what customers wanted and did not get.

Owns who is told about what, by the organization's own choice. A notice is a text like any other, planned in
the transaction of what it tells.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from app.models.appointments import Appointment
from app.models.services_offered import find_service
from app.models.tool_answers import ended_unfinished
from app.services.messages import plan_text
from app.services.wording import Text

if TYPE_CHECKING:
    from app.services.directory import Business

PURPOSE = "notice"


class About(StrEnum):
    """What an organization may want to be told about."""

    BOOKINGS = "bookings"
    CHANGES = "changes"
    UNFINISHED = "unfinished"


def plan(session: Session, business: Business, row: Appointment, about: About, notice: str, **values: Any) -> None:
    """Plan the notice of that name about an appointment, once for this version of it, if somebody wants it."""
    if not _is_wanted(business, about):
        return
    wording = business.wording
    service = find_service(session, row.service_id) if row.service_id else None
    said = wording.text(
        f"notice.{notice}",
        name=row.name,
        what=service.name if service else wording.say("phrase.appointment"),
        phone=row.phone or wording.say("phrase.no_number"),
        **values,
    )
    _plan(session, business, said, key=f"{notice}:{row.id}:{row.version}", appointment_id=row.id)


def plan_of_call(session: Session, business: Business, call_id: str, *, phone: str | None) -> None:
    """Plan a notice, once, when a call has ended with a caller who was not helped, if somebody wants it."""
    if not _is_wanted(business, About.UNFINISHED) or not ended_unfinished(
        session, business.id, call_id, except_for="send_text"
    ):
        return
    wording = business.wording
    said = wording.text("notice.unfinished_call", phone=phone or wording.say("phrase.no_number"))
    _plan(session, business, said, key=f"call:{call_id}", call_id=call_id)


def _is_wanted(business: Business, about: About) -> bool:
    return business.notify_number is not None and about in business.notify_about


def _plan(session: Session, business: Business, said: Text, *, key: str, **about: Any) -> None:
    assert business.notify_number is not None
    plan_text(
        session,
        business.id,
        to=business.notify_number,
        body=said,
        channel="sms",
        idempotency_key=f"notice:{key}",
        purpose=PURPOSE,
        **about,
    )
