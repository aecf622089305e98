"""The story of one event, one call or one phone number: everything that is known of it, in order of time.

Owns what belongs to what: a call has its events, tool calls, appointments and their texts; a text has its
sending and the news of it. What each is told as is `story_lines`'. Reads only, for operators: it shows
what was said. Each part is bounded, and says so when it was cut.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import NotFound
from app.integrations.doors import DOORS
from app.integrations.twilio import conversation_lane
from app.models import story as rows
from app.services import story_lines
from app.services.own_work import OwnWork
from app.services.readable import plain

if TYPE_CHECKING:
    from app.services.platform import Platform

MOST = 100  # of each kind
MOST_CALLS = 10  # of one number
_ADDRESS = re.compile(r"(whatsapp:)?\+\d{6,15}")
Row = dict[str, Any]


def tell(platform: Platform, subject: str, *, org_id: UUID | None = None) -> Row:
    """Everything about an event id (the provider's, or a delivery's number), a call id or a phone number (E.164).

    Returns ``subject``, ``kind`` (event, call or number), ``lines`` in order of time (each ``at``, ``org_id``,
    ``what``, ``told``) and ``notes`` on what was left out. Of all organizations unless one is given. Raises
    NotFound when nothing is known.
    """
    subject = subject.strip()
    with platform.database.transaction(system=True) as session:
        found = _Found(session, org_id)
        kind = _gather(found, subject)
        if kind is None:
            raise NotFound("nothing is known of this event, call or number (finished events are kept for days only)")
        found.follow()
        lines = story_lines.tell(found)
    return {"subject": subject, "kind": kind, "lines": [plain(line) for line in lines], "notes": found.notes}


def _gather(found: _Found, subject: str) -> str | None:
    """Find what the subject itself is; None when it is nothing that is known."""
    if _ADDRESS.fullmatch(subject):
        found.number(subject.removeprefix("whatsapp:"))
        return "number" if found.anything() else None
    found.call(subject)
    if found.anything():
        found.with_transcript = True
        return "call"
    found.event(subject)
    return "event" if found.anything() else None


@dataclass
class _Found:
    """What has been found so far, each row once."""

    session: Session
    org_id: UUID | None
    deliveries: dict[int, Row] = field(default_factory=dict)
    calls: dict[UUID, Row] = field(default_factory=dict)
    answers: dict[tuple[UUID, str, str], Row] = field(default_factory=dict)
    appointments: dict[UUID, Row] = field(default_factory=dict)
    messages: dict[UUID, Row] = field(default_factory=dict)
    opt_outs: list[Row] = field(default_factory=list)
    payloads: dict[int, Row] = field(default_factory=dict)
    attempts: list[Row] = field(default_factory=list)
    actions: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    with_transcript: bool = False

    def anything(self) -> bool:
        """Whether anything at all was found."""
        return bool(self.deliveries or self.calls or self.messages or self.appointments or self.opt_outs)

    def call(self, call_id: str) -> None:
        """A call with its events, what was answered in it, and what it booked."""
        self._deliveries(rows.deliveries_in_lanes(self.session, [f"call:{call_id}"], org_id=self.org_id, limit=MOST))
        calls = rows.calls_with_id(self.session, call_id, org_id=self.org_id)
        self.calls |= {row["id"]: row for row in calls}
        for org_id in {row["org_id"] for row in [*calls, *self.deliveries.values()]}:
            self._said_in(org_id, call_id)

    def number(self, number: str) -> None:
        """A person: calls, texts both ways, appointments, and whether they want texts."""
        calls = rows.calls_of_customer(self.session, number, org_id=self.org_id, limit=MOST_CALLS)
        self._cut("calls", calls, MOST_CALLS)
        for row in calls:
            self.calls[row["id"]] = row
            lanes = [f"call:{row['vapi_call_id']}"]
            self._deliveries(rows.deliveries_in_lanes(self.session, lanes, org_id=row["org_id"], limit=MOST))
            self._said_in(row["org_id"], row["vapi_call_id"])
        messages = rows.messages_of_customer(self.session, number, org_id=self.org_id, limit=MOST)
        self.messages |= {row["id"]: row for row in self._cut("texts", messages)}
        booked = rows.appointments_of_customer(self.session, number, org_id=self.org_id, limit=MOST)
        self.appointments |= {row["id"]: row for row in self._cut("appointments", booked)}
        self.opt_outs = rows.opt_outs_of(self.session, number, org_id=self.org_id)
        lane = [conversation_lane(number)]
        self._deliveries(rows.deliveries_in_lanes(self.session, lane, org_id=self.org_id, limit=MOST))

    def event(self, event: str) -> None:
        """One event, and what it was about: the text, the appointment, or what was asked and answered."""
        self._deliveries(rows.deliveries_of_event(self.session, event, org_id=self.org_id, limit=MOST))
        for delivery in list(self.deliveries.values()):
            said = rows.payloads_of(self.session, [delivery["id"]]).get(delivery["id"], {})
            self._about(delivery, said.get("body") or {})

    def follow(self) -> None:
        """From appointments to their texts, from texts to their sending and news; then all tries and payloads."""
        for row in list(self.appointments.values()):
            if row["phone"]:
                texts = rows.messages_of_customer(self.session, row["phone"], org_id=row["org_id"], limit=MOST)
                self.messages |= {text["id"]: text for text in texts if text["appointment_id"] == row["id"]}
            self._lanes([f"appointment:{row['id']}"], row["org_id"])
        for row in list(self.messages.values()):
            own = [f"message:{row['id']}", f"check:{row['id']}"]
            self._lanes([*own, f"message:{row['provider_sid']}"] if row["provider_sid"] else own, row["org_id"])
        by_lane: dict[tuple[UUID, str], list[UUID]] = {}
        for row in self.messages.values():
            by_lane.setdefault((row["org_id"], conversation_lane(row["remote_address"])), []).append(row["id"])
        for (org_id, lane), ids in by_lane.items():
            self._deliveries(rows.sends_in_lane(self.session, lane, ids, org_id=org_id))
        kept = list(self.deliveries.values())
        self.payloads = rows.payloads_of(self.session, [row["id"] for row in kept])
        self.attempts = self._cut("attempts", rows.attempts_of(self.session, kept, limit=5 * MOST), 5 * MOST)
        self._operators()

    def _said_in(self, org_id: UUID, call_id: str) -> None:
        answers = self._cut("tool calls", rows.answers_of_call(self.session, org_id, call_id, limit=MOST))
        self.answers |= {(org_id, call_id, row["tool_call_id"]): row for row in answers}
        booked = rows.appointments_of_call(self.session, org_id, call_id, limit=MOST)
        self.appointments |= {row["id"]: row for row in booked}

    def _about(self, delivery: Row, said: Row) -> None:
        """What a single event touched, by the ids that it carries."""
        org_id = delivery["org_id"]
        if delivery["provider"] in DOORS:  # its words are somebody's own: they name nothing of ours
            forward = f"{OwnWork.FORWARD_EVENT}:{delivery['id']}"
            self._deliveries(rows.deliveries_of_event(self.session, forward, org_id=org_id, limit=MOST))
            return
        sid = (said.get("_") or {}).get("message_sid")
        ids = [UUID(said["message_id"])] if "message_id" in said else []
        if sid or ids:
            texts = rows.messages_with(self.session, org_id, ids=ids, sids=[sid] if sid else [])
            self.messages |= {row["id"]: row for row in texts}
        if "appointment_id" in said:
            ids = [UUID(said["appointment_id"])]
            self.appointments |= {
                row["id"]: row for row in rows.appointments_with_ids(self.session, ids, org_id=org_id)
            }
        if delivery["lane_key"].startswith("call:"):
            call_id = delivery["lane_key"].split(":")[1]
            if delivery["type"] == "tool-calls":
                self._said_in(org_id, call_id)
            else:
                self.calls |= {row["id"]: row for row in rows.calls_with_id(self.session, call_id, org_id=org_id)}
            self.notes.append(f"it belongs to a call: `story {call_id}` tells all of that")

    def _operators(self) -> None:
        subjects = [str(one) for one in (*self.deliveries, *self.calls, *self.messages, *self.appointments)]
        orgs = {
            row["org_id"]
            for group in (self.deliveries, self.calls, self.messages, self.appointments)
            for row in group.values()
        }
        self.actions = rows.actions_on(self.session, list(orgs), subjects, limit=MOST)

    def _lanes(self, lanes: list[str], org_id: UUID) -> None:
        self._deliveries(rows.deliveries_in_lanes(self.session, lanes, org_id=org_id, limit=MOST))

    def _deliveries(self, found: list[Row]) -> None:
        self.deliveries |= {row["id"]: row for row in self._cut("events", found)}

    def _cut(self, name: str, found: list[Row], most: int = MOST) -> list[Row]:
        note = f"only the most recent {most} {name} are shown"
        if len(found) >= most and note not in self.notes:
            self.notes.append(note)
        return found
