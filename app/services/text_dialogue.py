"""Texts that come in: stored, and where they are a wish of ours, done: cancelling and moving, in a few turns.

Owns what is asked back and what a number then means. The open question is a row, which ends by itself; the
conversation's lane handles one text at a time. The calendar is asked, and a time is taken, before the
transaction that stores the text, so that a crash between repeats the turn and doubles nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from app.errors import InvalidInput, NotFound, PermanentFailure, SlotTaken, TemporaryFailure
from app.integrations.deadline import Deadline
from app.models.appointments import Appointment, AppointmentStatus, find_appointment, lock_appointment, upcoming_of
from app.models.messages import Message, is_stored
from app.models.text_dialogues import TextDialogue, end_dialogue, find_dialogue, keep_dialogue
from app.services import appointments, messages, notices, offers
from app.services.catalogue import CATALOGUE
from app.services.delivery import Skip, Work
from app.services.notices import About
from app.services.slots import Period, midnight
from app.services.wording import Text, Wording

if TYPE_CHECKING:
    from app.services.directory import Business
    from app.services.platform import Platform

LASTS = timedelta(hours=3)  # for so long a number means what was offered
DEADLINE_SECONDS = 8.0
DAYS_AHEAD = timedelta(days=14)
OFFERED, A_DAY, MOST_LOOKED_AT = 4, 2, 2_000
_NUMBER = re.compile(r"#?\s*(\d{1,2})\s*[.)]?")


@dataclass(frozen=True, slots=True)
class Question:
    """What is open after a turn: of which appointment (None: that is the question), and what a number means."""

    intent: str
    appointment_id: UUID | None
    options: list[str]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a text comes to. ``question`` None and not ``keeps``: nothing is asked any more."""

    said: Text | None = None
    question: Question | None = None
    keeps: bool = False
    cancels: UUID | None = None
    unfinished: UUID | None = None


def receive(work: Work) -> Skip | None:
    """Handler of ``message.inbound``: store the text; a wish of ours is done, and answered. Safe to repeat."""
    platform, org_id = work.platform, work.delivery.org_id
    news = (work.delivery.body or {})["_"]
    business = platform.directory.business(org_id)
    with platform.database.transaction(org_id) as session:
        if is_stored(session, org_id, news["message_sid"]):
            return Skip("this text was stored before")
        asked = find_dialogue(session, org_id, news["address_from"])
    turn = Talk(platform, business, news["address_from"], news["channel"], asked).turn(news["body"])
    with platform.database.transaction(org_id) as session:
        message = messages.record_inbound(session, work)
        if message is None:
            return Skip("this text was stored before")
        if turn is not None:
            _do(session, business, message, turn)
    platform.bell.ring()
    return None


@dataclass(frozen=True, slots=True)
class Talk:
    """One conversation at one moment; ``asked`` is what was asked of the customer last."""

    platform: Platform
    business: Business
    address: str
    channel: str
    asked: TextDialogue | None

    def turn(self, body: str) -> Turn | None:
        """What the text comes to; None when it is nothing of ours, and a person reads it."""
        word = body.strip().strip(".!").casefold()
        number = _NUMBER.fullmatch(body.strip())
        if word in CATALOGUE.words["cancel"]:
            return self._begin("cancel", self._cancel)
        if word in CATALOGUE.words["move"]:
            return self._begin("move", self._offer)
        asked = self.asked
        if asked is None or not (number or word in CATALOGUE.words["more"]):
            return None
        if asked.expires_at <= datetime.now(UTC):
            return Turn(self._words.text("text.choice_ended"))
        if number is None:
            return self._more(asked)
        chosen = int(number[1])
        if not 1 <= chosen <= len(asked.options):
            return Turn(self._words.text("text.not_a_choice", most=len(asked.options)), keeps=True)
        if asked.appointment_id is not None:
            return self._take(asked, datetime.fromisoformat(asked.options[chosen - 1]))
        row = self._find(UUID(asked.options[chosen - 1]))
        if row is None:
            return Turn(self._words.text("text.no_appointment"))
        return self._cancel(row) if asked.intent == "cancel" else self._offer(row)

    def _begin(self, intent: str, go_on: Callable[[Appointment], Turn]) -> Turn:
        """Of one appointment it is clear which is meant, of several it is asked."""
        with self.platform.database.transaction(self.business.id) as session:
            upcoming = upcoming_of(session, self.business.id, self.address, now=datetime.now(UTC))
        if not upcoming:
            return Turn(self._words.text("text.no_appointment"))
        if len(upcoming) == 1:
            return go_on(upcoming[0])
        shown = upcoming[: 2 * OFFERED]
        options = self._words.choices([self._words.time(row.starts_at) for row in shown])
        question = Question(intent, None, [str(row.id) for row in shown])
        return Turn(self._words.text(f"text.which_to_{intent}", options=options), question)

    def _cancel(self, row: Appointment) -> Turn:
        return Turn(cancels=row.id)

    def _more(self, asked: TextDialogue) -> Turn | None:
        row = self._find(asked.appointment_id) if asked.appointment_id else None
        if row is None:
            return None
        last = datetime.fromisoformat(asked.options[-1]).astimezone(self._zone).date()
        return self._offer(row, after=midnight(last + timedelta(days=1), self._zone))

    def _offer(self, row: Appointment, *, after: datetime | None = None, template: str = "text.choose_time") -> Turn:
        """Times to move the appointment to, by their numbers."""
        start = max(after or datetime.min.replace(tzinfo=UTC), datetime.now(UTC))
        try:
            slots = self._free(row, start)
        except (TemporaryFailure, PermanentFailure):
            return Turn(self._words.text("text.times_unknown"), unfinished=row.id)
        if not slots:
            return Turn(self._words.text("text.no_times", when=row.starts_at), unfinished=row.id)
        options = self._words.choices([self._words.time(slot.start) for slot in slots])
        values = {"when": row.starts_at} if template == "text.choose_time" else {}
        question = Question("move", row.id, [slot.start.isoformat() for slot in slots])
        return Turn(self._words.text(template, options=options, **values), question)

    def _take(self, asked: TextDialogue, start: datetime) -> Turn:
        """Move the appointment to a time that was offered; offers others when it has gone."""
        row = self._find(asked.appointment_id)
        if row is None:
            return Turn(self._words.text("text.no_appointment"))
        try:
            wish = self._wish(row)
            appointments.move(self.platform, self.business, row.id, wish, wish.service.at(start), by_text=self.channel)
        except NotFound:
            return Turn(self._words.text("text.no_appointment"))
        except (SlotTaken, InvalidInput):
            return self._offer(row, after=start, template="text.choose_another")
        return Turn()  # the confirmation follows when the calendar has it

    def _free(self, row: Appointment, start: datetime) -> list[Period]:
        """A few free times on several days: of each day an early and a later one."""
        found = offers.find(
            self.platform,
            self.business,
            self._wish(row),
            start=start,
            end=start + DAYS_AHEAD,
            most=MOST_LOOKED_AT,
            deadline=Deadline.within(DEADLINE_SECONDS),
        )
        days = groupby(found.slots, key=lambda slot: slot.start.astimezone(self._zone).date())
        return [slot for _, of_day in days for slot in _spread(list(of_day))][:OFFERED]

    def _wish(self, row: Appointment) -> offers.Wish:
        rules = offers.rules_of(self.platform, self.business)
        service = rules.service_of(row)
        return offers.Wish(rules, service, rules.places_of(row, service, None))

    def _find(self, appointment_id: UUID | None) -> Appointment | None:
        """The appointment, if the customer can still do anything about it."""
        if appointment_id is None:
            return None
        with self.platform.database.transaction(self.business.id) as session:
            row = find_appointment(session, self.business.id, appointment_id)
        return row if row is not None and _is_upcoming(row) else None

    @property
    def _words(self) -> Wording:
        return self.business.wording

    @property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.business.timezone)


def _do(session: Session, business: Business, message: Message, turn: Turn) -> None:
    """Write down what the turn came to: the question, the cancelling, the answer."""
    org_id, address = business.id, message.remote_address
    if turn.question is not None:
        asked = turn.question
        keep_dialogue(
            session,
            org_id,
            address,
            intent=asked.intent,
            appointment_id=asked.appointment_id,
            options=asked.options,
            lasts=LASTS,
        )
    elif not turn.keeps:
        end_dialogue(session, org_id, address)
    said = turn.said
    if turn.cancels is not None and not _cancel(session, business, message, turn.cancels):
        said = business.wording.text("text.no_appointment")
    if said is not None:
        messages.plan_text(
            session,
            org_id,
            to=address,
            body=said,
            channel=message.channel,
            idempotency_key=f"reply:{message.id}",
            purpose="reply",
        )
    row = find_appointment(session, org_id, turn.unfinished) if turn.unfinished else None
    if row is not None:
        notices.plan(session, business, row, About.UNFINISHED, "no_times", when=row.starts_at)


def _cancel(session: Session, business: Business, message: Message, appointment_id: UUID) -> bool:
    """Cancel it, answered by the channel of the text; False when it was given up meanwhile."""
    row = lock_appointment(session, business.id, appointment_id)
    if row is None or not _is_upcoming(row):
        return False
    row.channel = message.channel
    appointments.cancel_locked(session, business, row)
    return True


def _is_upcoming(row: Appointment) -> bool:
    return row.status in (AppointmentStatus.PENDING, AppointmentStatus.BOOKED) and row.ends_at > datetime.now(UTC)


def _spread(slots: Sequence[Period]) -> list[Period]:
    """The first of a day, and one from its middle where there are several."""
    return [slots[0], slots[len(slots) // 2]][:A_DAY] if len(slots) > 1 else list(slots)
