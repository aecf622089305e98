"""What the assistant may ask for while a caller listens: definitions, and the sentences it gets back.

Owns what each tool does and which sentence says so; its arguments are in ``tool_arguments.py``, the
wordings in ``catalogue.py``. A tool answers
with one line to be spoken from; it raises nothing for what a caller may say wrong. How long it may
take, and asking twice, are ``answers.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from app.errors import DatabaseUnavailable, InvalidInput, NotFound, PermanentFailure, SlotTaken, TemporaryFailure
from app.integrations.deadline import Deadline
from app.models.appointments import Appointment, AppointmentStatus
from app.models.messages import has_opted_out
from app.services import appointments, offers
from app.services.calendar_push import Pusher
from app.services.messages import plan_text
from app.services.offers import Wish
from app.services.promises import Promise, promise
from app.services.slots import Period, local_iso, parse_when
from app.services.tool_arguments import (
    Arguments,
    BookAppointment,
    CancelAppointment,
    CheckAvailability,
    RescheduleAppointment,
    SendText,
    plain_property,
)
from app.services.tool_arguments import normalise_phone as normalise_phone  # known by this name elsewhere
from app.services.wording import Refused, Wording

if TYPE_CHECKING:
    from app.services.directory import Business
    from app.services.platform import Platform

MOST_OFFERED, OTHERS_OFFERED = 8, 3
_OTHERWISE = {
    AppointmentStatus.PENDING: "said.pending",
    AppointmentStatus.CANCELLED: "said.cancelled",
    AppointmentStatus.FAILED: "said.not_kept",
}


@dataclass(slots=True)
class Asking:
    """One tool call while it is worked on: what is certain so far, should its time run out.

    ``held`` is the appointment it has touched; ``certain`` a sentence that is true whatever follows;
    ``done`` which sentence tells its success, ``calendar_source`` by whose word times are free (``availability``).
    ``unfinished``: the caller was not helped. ``no_database`` that nothing could be asked or done, and that it can be
    later. ``is_late``: it is done later, the caller has gone; the calendar follows by itself, and ``wanted`` and
    ``alternatives`` are what there is to tell.
    """

    platform: Platform
    business: Business
    deadline: Deadline
    call_id: str | None
    tool_call_id: str
    held: UUID | None = None
    certain: str | None = None
    done: str = "booked"
    calendar_source: str | None = None
    unfinished: bool = False
    no_database: bool = False
    is_late: bool = False
    wanted: Period | None = None
    alternatives: list[Period] = field(default_factory=list)

    @property
    def zone(self) -> ZoneInfo:
        """The organization's time zone."""
        return ZoneInfo(self.business.timezone)

    @property
    def wording(self) -> Wording:
        """The organization's words."""
        return self.business.wording

    def phone(self, said: str) -> str:
        """E.164 from what was said, national forms read by the business's own country; raises InvalidInput."""
        return normalise_phone(said, near=self.business.phone_number)


def check_availability(asking: Asking, args: CheckAvailability) -> str:
    """Free times, from our own appointments and the calendar's busy periods."""
    asking.certain = asking.wording.say("said.calendar_away_message")
    start = max(parse_when(args.start, asking.zone), datetime.now(UTC))
    end = parse_when(args.end, asking.zone, until=True) if args.end else start + timedelta(days=7)
    end = min(end, start + timedelta(days=31))
    if end <= start:
        raise Refused("end_before_start", code="end_before_start")
    wish = offers.wish(asking.platform, asking.business, service=args.service, staff=args.staff)
    try:
        return _say_free(asking, _find_free(asking, wish, start=start, end=end, most=MOST_OFFERED))
    except TemporaryFailure:
        asking.unfinished = True
        return asking.wording.say("said.calendar_away_ask")


def book_appointment(asking: Asking, args: BookAppointment) -> str:
    """Hold the slot, write it to the calendar, and let the confirmation be texted."""
    start = parse_when(args.start, asking.zone)
    phone = asking.phone(args.phone)
    wish = offers.wish(asking.platform, asking.business, service=args.service, staff=args.staff)
    wanted = wish.service.at(start)
    wish = offers.prefer_idle(asking.platform, asking.business, wish, wanted, deadline=asking.deadline)
    booking = appointments.Booking(
        wish=wish,
        wanted=wanted,
        name=args.name,
        phone=phone,
        channel=appointments.preferred_channel(asking.platform, asking.business.id, phone, args.channel),
        notes=args.notes,
        call_id=asking.call_id,
        tool_call_id=asking.tool_call_id,
    )
    return _settle(asking, wish, wanted, lambda: appointments.hold(asking.platform, asking.business, booking))


def reschedule_appointment(asking: Asking, args: RescheduleAppointment) -> str:
    """Move the appointment, pending or booked."""
    asking.done = "moved"
    start = parse_when(args.new_start, asking.zone)
    row = _find(asking, args.phone, args.start)
    rules = offers.rules_of(asking.platform, asking.business)
    service = rules.service(args.service) if args.service else rules.service_of(row)
    wish = offers.Wish(rules, service, rules.places_of(row, service, args.staff))
    wanted = service.at(start)
    return _settle(
        asking, wish, wanted, lambda: appointments.move(asking.platform, asking.business, row.id, wish, wanted)
    )


def _settle(asking: Asking, wish: Wish, wanted: Period, take: Callable[[], Appointment]) -> str:
    """``take`` the slot in our own rows, write it to the calendar, and say what came of it."""
    try:
        row = take()
        asking.held = row.id
        row = _push(asking, row)
    except (SlotTaken, InvalidInput) as error:
        if asking.is_late:
            asking.wanted, asking.alternatives = wanted, _others(asking, wish, wanted)
            raise
        return _refuse_time(asking, wish, wanted, error)
    except DatabaseUnavailable:
        raise  # nothing can be said of it, and all of it can be done later
    except TemporaryFailure:
        return unfinished(asking)
    return _say_done(asking, row)


def cancel_appointment(asking: Asking, args: CancelAppointment) -> str:
    """Cancel the appointment, pending or booked. Its row is the truth, so this needs no calendar to be true."""
    row = _find(asking, args.phone, args.start)
    row = appointments.cancel(asking.platform, asking.business, row.id)
    said = asking.certain = asking.wording.say("said.cancelled", when=row.starts_at)
    with suppress(TemporaryFailure, PermanentFailure):  # the calendar follows; the slot is free already
        _push(asking, row)
    return said


def send_text(asking: Asking, args: SendText) -> str:
    """Plan the text; it is on its way when this is said."""
    phone = asking.phone(args.phone)
    org_id = asking.business.id
    channel = appointments.preferred_channel(asking.platform, org_id, phone, args.channel)
    with asking.platform.database.transaction(org_id) as session:
        plan_text(
            session,
            org_id,
            to=phone,
            body=args.text,
            channel=channel,
            idempotency_key=f"tool:{asking.call_id}:{asking.tool_call_id}",
            purpose="tool",
            call_id=asking.call_id,
        )
        refused = has_opted_out(session, org_id, phone)
    asking.platform.bell.ring()
    return asking.wording.say("said.text_refused" if refused else "said.text_sent")


def unfinished(asking: Asking) -> str:
    """What to say when the time is up or the calendar is away: only what is certain."""
    if asking.certain is not None:
        return asking.certain
    if asking.held is None:
        # what is under way may still be committed: neither promised nor denied
        return asking.wording.say("said.uncertain")
    kept = promise(asking.platform, asking.business, asking.held)
    when = kept.period.start
    if kept.state is Promise.NOTED:
        return asking.wording.say("said.noted_and_text" if kept.reachable else "said.noted", when=when)
    if kept.state is Promise.DONE:
        return _say_success(asking, when, reachable=kept.reachable)
    return asking.wording.say("said.gone", when=when)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool by its name: what it takes and what does it."""

    name: str
    arguments: type[Arguments]
    run: Callable[[Asking, Any], str]

    def answer(self, asking: Asking, arguments: dict[str, Any]) -> str:
        """One line to speak from, also for arguments that make no sense and for things that are not there."""
        try:
            return self.run(asking, self.arguments.model_validate(arguments))
        except ValidationError as error:
            names = ", ".join(sorted({str(fault["loc"][0]) for fault in error.errors() if fault["loc"]}))
            return asking.wording.say("said.arguments", names=names) if names else asking.wording.say("said.no_details")
        except InvalidInput as error:
            return asking.wording.say("said.ask_again", reason=asking.wording.reason(error))
        except NotFound:
            return asking.wording.say("said.no_appointment")
        except PermanentFailure:
            asking.unfinished = True
            return asking.wording.say("said.cannot_now")

    def definition(self, server_url: str | None = None) -> dict[str, Any]:
        """The tool in Vapi's own format, ready for its API."""
        schema = self.arguments.model_json_schema()
        properties = {name: plain_property(prop) for name, prop in schema["properties"].items()}
        definition: dict[str, Any] = {
            "type": "function",
            "async": False,
            "function": {
                "name": self.name,
                "description": (self.arguments.__doc__ or "").strip(),
                "parameters": {
                    "type": "object",
                    "properties": properties,
                    "required": schema.get("required", []),
                },
            },
        }
        if server_url:
            definition["server"] = {"url": server_url, "timeoutSeconds": 20}
        return definition


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("check_availability", CheckAvailability, check_availability),
        Tool("book_appointment", BookAppointment, book_appointment),
        Tool("reschedule_appointment", RescheduleAppointment, reschedule_appointment),
        Tool("cancel_appointment", CancelAppointment, cancel_appointment),
        Tool("send_text", SendText, send_text),
    )
}


def _push(asking: Asking, row: Appointment) -> Appointment:
    if asking.is_late:
        return row  # its finishing is planned with it, and texts how it ended
    return Pusher(asking.platform, asking.business, asking.deadline).push(row.id)


def _find(asking: Asking, phone: str, start: str | None) -> Appointment:
    starts_at = parse_when(start, asking.zone) if start else None
    return appointments.find_one(asking.platform, asking.business.id, phone=asking.phone(phone), starts_at=starts_at)


def _find_free(asking: Asking, wish: Wish, *, start: datetime, end: datetime, most: int) -> list[Period]:
    found = offers.find(
        asking.platform, asking.business, wish, start=start, end=end, most=most, deadline=asking.deadline
    )
    asking.calendar_source = found.source
    return found.slots


def _others(asking: Asking, wish: Wish, wanted: Period) -> list[Period]:
    """The next free times, as far as they can be known."""
    start = max(wanted.start, datetime.now(UTC))
    try:
        return _find_free(asking, wish, start=start, end=start + timedelta(days=7), most=OTHERS_OFFERED)
    except TemporaryFailure:
        return []


def _refuse_time(asking: Asking, wish: Wish, wanted: Period, error: Exception) -> str:
    """Why not, and the next free times, as far as they are known in the time that is left."""
    wording = asking.wording
    if isinstance(error, InvalidInput):
        reason = wording.say("said.does_not_work", when=wanted.start, reason=wording.reason(error))
    else:
        reason = wording.say("said.taken", when=wanted.start)
    start = max(wanted.start, datetime.now(UTC))
    try:
        free = _find_free(asking, wish, start=start, end=start + timedelta(days=7), most=OTHERS_OFFERED)
    except TemporaryFailure:
        return f"{reason} {wording.say('said.ask_other_time')}"
    return f"{reason} {_say_free(asking, free)}"


def _say_free(asking: Asking, slots: list[Period]) -> str:
    if not slots:
        return asking.wording.say("said.no_free_times")
    said = (f"{asking.wording.time(slot.start)} ({local_iso(slot.start, asking.zone)})" for slot in slots)
    return asking.wording.say("said.free_times", options="; ".join(said))


def _say_done(asking: Asking, row: Appointment) -> str:
    if row.status != AppointmentStatus.BOOKED:
        return asking.wording.say(_OTHERWISE[AppointmentStatus(row.status)], when=row.starts_at)
    with asking.platform.database.transaction(asking.business.id) as session:
        refused = row.phone is not None and has_opted_out(session, asking.business.id, row.phone)
    return _say_success(asking, row.starts_at, reachable=not refused)


def _say_success(asking: Asking, when: datetime, *, reachable: bool) -> str:
    return asking.wording.say(f"said.{asking.done}{'' if reachable else '_no_text'}", when=when)
