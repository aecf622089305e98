"""How a WhatsApp text may go: freely within 24 hours of the customer's last one, else by an approved template.

Owns the window, and what carries a text that WhatsApp does not take. Reads and changes rows; calls nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from app.integrations.twilio import Approved
from app.models.messages import Message, MessageStatus, has_written

if TYPE_CHECKING:
    from app.services.directory import Business

CHANNEL = "whatsapp"
# Twilio docs, "WhatsApp: customer service windows". Less what a text may take on its way to Twilio.
WINDOW = timedelta(hours=24) - timedelta(minutes=1)
WINDOW_CLOSED = "63016"  # Twilio docs: no free text 24 hours after the customer's last message
# With each of them the text has certainly not arrived: window closed; template unknown, misfilled, or paused.
NOT_TAKEN = frozenset({WINDOW_CLOSED, "21655", "21656", "63028", "63041"})
NO_WAY = "the customer has not written by WhatsApp within 24 hours, and there is no approved template"
ADVICE = "Name an approved template with `template set --content-sid`, or allow SMS with `org set --sms-instead`."


@dataclass(frozen=True, slots=True)
class Way:
    """How a text goes out; ``approved`` None: as it is."""

    approved: Approved | None = None


def way_of(session: Session, business: Business, message: Message) -> Way | None:
    """How the text may go out now; None when WhatsApp would not take it."""
    if message.channel != CHANNEL or has_written(
        session, message.org_id, message.remote_address, channel=CHANNEL, within=WINDOW
    ):
        return Way()
    approved = _approved(business, message)
    return None if approved is None else Way(approved)


def send_by_sms_instead(session: Session, business: Business, message: Message, plan_text: Callable[..., Any]) -> bool:
    """Plan the same by SMS, if the organization allows it, of a text that WhatsApp has certainly not taken."""
    undelivered = message.status in (MessageStatus.FAILED, MessageStatus.UNDELIVERED)
    has_number = message.remote_address.startswith("+")
    if message.channel != CHANNEL or not undelivered or message.error_code not in NOT_TAKEN:
        return False
    if not has_number or not business.sms_instead:
        return False
    plan_text(
        session,
        message.org_id,
        to=message.remote_address,
        body=message.body,
        channel="sms",
        idempotency_key=f"sms-instead:{message.id}",
        purpose=message.purpose or "sms_instead",
        appointment_id=message.appointment_id,
        call_id=message.call_id,
    )
    return True


def _approved(business: Business, message: Message) -> Approved | None:
    """The organization's approved template that says what the text says."""
    found = business.wording.approved(message.template) if message.template else None
    if found is None:
        return None
    values = message.template_values or {}
    return Approved(found.content_sid, [str(values[name]) for name in found.variables])
