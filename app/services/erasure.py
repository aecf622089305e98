"""Erasing one person, known by a phone number, from everything: what they said, what was said to them, who they are.

Owns the order: first what indexes find and what is still to be done for them, then whatever any table says of the
number in any spelling, what is kept encrypted, and in the end a search that shows that nothing is left. Rows keep
their place and their natural keys. Providers keep their own copies: only the words of calendar events are ours to
change. Nothing here writes the number anywhere, and the trail has none.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from sqlalchemy import Table
from sqlalchemy.orm import Session

from app.errors import ConfigurationError, InvalidInput
from app.integrations.twilio import conversation_lane
from app.integrations.vapi import call_of
from app.models import OptOut, Payload, mentions, persons
from app.models.deliveries import UNOWNED_ORG_ID
from app.models.mentions import Key
from app.models.persons import ERASED, Traces
from app.models.quarantine import list_kept_of, release
from app.observability.logging import get_logger
from app.services import audit, own_work, quarantine, spool_upkeep
from app.services.own_work import OwnWork
from app.services.spellings import Spellings, spellings_of

if TYPE_CHECKING:
    from app.services.platform import Platform

PIECE = 1_000  # rows a statement of the search
REST = 0.5  # of the time a piece took: intake has the disk to itself for that long
LOOK_AGAIN_SECONDS = 0.2
QUARANTINE_PIECE = 50

log = get_logger(__name__)


def erase(
    platform: Platform, said: str, *, actor: str, org_id: UUID | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Erase the person with this number, of all organizations or of one. Safe to repeat and to interrupt.

    Returns how many ``calls``, ``messages``, ``appointments``, ``deliveries`` (of which ``ended`` before they had
    begun), ``answers``, ``quarantined`` requests and ``spooled`` lines of this host were theirs, ``opt_outs`` that are
    kept under an alias,
    ``mentions`` of the number elsewhere by table, ``calendar_events`` whose words are being changed, what is ``left``
    by table (empty when nothing is), and ``at_providers``, which keep copies of their own. With ``dry_run`` the same
    numbers, and nothing is changed. Raises InvalidInput for what is no number, or the house's own.
    """
    began = time.monotonic()
    who = spellings_of(said)
    with platform.database.transaction(system=True) as session:
        if persons.is_the_houses(session, who.number):
            raise InvalidInput("an organization's own number is no person's; take it out with `org set`")
    run = _Run(platform, who, org_id, dry_run=dry_run)
    run.all()
    done = {**run.told(), "dry_run": dry_run, "seconds": round(time.monotonic() - began, 1)}
    if not dry_run:
        request = str(uuid4())
        counts = {name: value for name, value in done.items() if isinstance(value, int) and name != "dry_run"}
        with platform.database.transaction(system=True) as session:
            for one in run.organizations or {org_id or UNOWNED_ORG_ID}:
                audit.note(session, one, actor=actor, action="person.erase", subject=request, **counts)
        platform.bell.ring()
        log.info("person.erased", request=request, **counts)
        done["request"] = request
    return done


class _Run:
    """One erasure and its numbers so far."""

    def __init__(self, platform: Platform, who: Spellings, org_id: UUID | None, *, dry_run: bool) -> None:
        self._platform = platform
        self._who = who
        self._org_id = org_id
        self._dry_run = dry_run
        self.organizations: set[UUID] = set()
        self._counts: Counter[str] = Counter()
        self._mentions: Counter[str] = Counter()
        self._left: Counter[str] = Counter()

    def all(self) -> None:
        """Everything, in order; what waits on this host's disk first, or it would come in afterwards."""
        if not self._dry_run:
            self._counts["spooled"] = spool_upkeep.erase(self._platform, [self._who.number], org_id=self._org_id)
        self._the_person()
        for table in mentions.searched():
            self._walk(table, self._rewrite, self._mentions)
        self._quarantined()
        if not self._dry_run:
            for table in mentions.searched():
                self._walk(table, self._is_left, self._left)

    def told(self) -> dict[str, Any]:
        """The numbers."""
        named = (
            "calls",
            "messages",
            "appointments",
            "deliveries",
            "ended",
            "answers",
            "opt_outs",
            "quarantined",
            "spooled",
        )
        return {
            **{name: self._counts[name] for name in (*named, "spooled")},
            "calendar_events": self._counts["calendar_events"],
            "mentions": dict(self._mentions),
            "left": dict(self._left),
            "at_providers": {"vapi_calls": self._counts["calls"], "twilio_messages": self._counts["sids"]},
        }

    # --- what indexes find ------------------------------------------------------------------------

    def _the_person(self) -> None:
        """Their rows; again while a worker is at something of theirs, at most for a lease."""
        until = time.monotonic() + self._platform.settings.lease_seconds
        while self._their_rows() and time.monotonic() < until:
            time.sleep(LOOK_AGAIN_SECONDS)

    def _their_rows(self) -> int:
        """Erase what is known of the person; how much is being handled just now."""
        with self._platform.database.transaction(system=True) as session:
            traces = persons.find_traces(session, self._who.number, org_id=self._org_id)
            found = set(persons.deliveries_in(session, conversation_lane(self._who.number), org_id=self._org_id))
            for org_id, lane in _lanes_of(traces):
                found |= set(persons.deliveries_in(session, lane, org_id=org_id))
            self._counts.update(
                calls=len(traces.calls),
                messages=len(traces.messages),
                appointments=len(traces.appointments),
                opt_outs=len(traces.opt_outs),
                sids=sum(sid is not None for _, _, sid in traces.messages),
            )
            if self._dry_run:
                self._counts["deliveries"] += len(found)
                return 0
            self.organizations |= traces.organizations()
            running = self._silence(session, sorted(found, key=lambda one: one[1]))
            if traces.opt_outs:
                persons.hide_opt_outs(session, self._who.number, traces.opt_outs)
            self._counts["answers"] += persons.erase_calls(session, traces.calls)
            persons.erase_messages(session, traces.messages)
            persons.erase_dialogues(session, self._who.number, org_id=self._org_id)
            for org_id, appointment_id in persons.erase_appointments(session, traces.appointments):
                own_work.plan(
                    session,
                    org_id,
                    OwnWork.ERASE_FROM_CALENDAR,
                    lane_key=f"appointment:{appointment_id}:erase",
                    payload={"appointment_id": str(appointment_id)},
                )
                self._counts["calendar_events"] += 1
        return running

    def _silence(self, session: Session, deliveries: list[tuple[UUID, int]]) -> int:
        if not deliveries:
            return 0
        erased, ended, running = persons.erase_deliveries(session, deliveries)
        self._counts.update(deliveries=erased, ended=ended)
        return running

    # --- what any table says ----------------------------------------------------------------------

    def _walk(self, table: Table, meet: Any, counter: Counter[str]) -> None:
        after: Key | None = None
        while True:
            began = time.monotonic()
            with self._platform.database.transaction(system=True) as session:
                piece = mentions.search(session, table, self._who.digits, after=after, org_id=self._org_id, most=PIECE)
                if piece is None:
                    return
                for key in piece.hits:
                    if meet(session, table, key):
                        counter[table.name] += 1
            if piece.last is None:
                return
            after = piece.last
            time.sleep(REST * (time.monotonic() - began))

    def _is_left(self, session: Session, table: Table, key: Key) -> bool:
        row = mentions.read(session, table, key)
        return row is not None and any(self._says(value) for value in row.values())

    def _rewrite(self, session: Session, table: Table, key: Key) -> bool:
        """Take the number out of a row, or all of what an event said that was the person's own."""
        row = mentions.read(session, table, key)
        said = {name: value for name, value in (row or {}).items() if self._says(value)}
        if not said or table.name == OptOut.__tablename__:
            return False
        if self._dry_run or not mentions.may_write(session, table):
            return self._dry_run
        if table.name == Payload.__tablename__ and (self._is_theirs(row or {}) or "raw" in said):
            delivery_id, org_id = _payload_key(table, key)
            if self._silence(session, [(org_id, delivery_id)]) == 0:
                return True
        fixed = {column.name for column in table.primary_key.columns}
        changed = {
            name: b"" if isinstance(value, bytes | memoryview) else self._who.without(value, ERASED)
            for name, value in said.items()
            if name not in fixed
        }
        if "idempotency_key" in changed:  # unique, and of no use to anybody now
            changed["idempotency_key"] = f"erased:{key[0]}"
        if changed:
            mentions.write(session, table, key, changed)
        return bool(changed)

    def _says(self, value: Any) -> bool:
        if isinstance(value, bytes | memoryview):
            return self._who.are_in_bytes(bytes(value))
        return self._who.are_in(value)

    def _is_theirs(self, row: Any) -> bool:
        """Whether the event came from the person, or went to them."""
        body = row.get("body")
        if not isinstance(body, dict):
            return False
        said = body.get("_")
        ends = [said.get("address_from"), said.get("address_to")] if isinstance(said, dict) else []
        return self._who.number in [*ends, call_of(body).customer_number]

    # --- what is encrypted ------------------------------------------------------------------------

    def _quarantined(self) -> None:
        """Refused requests that name the number go; those that no key opens cannot be read by anybody."""
        after = 0
        while True:
            with self._platform.database.transaction(system=True) as session:
                page = list_kept_of(session, org_id=self._org_id, after=after, limit=QUARANTINE_PIECE)
                for row in page:
                    try:
                        request = quarantine.opened(self._platform, row)
                    except ConfigurationError:
                        self._left["quarantined_webhooks (sealed with a key that is gone)"] += 1
                        continue
                    if self._who.are_in_bytes(request.body) or self._who.are_in(request.url):
                        self._counts["quarantined"] += 1
                        if not self._dry_run:
                            release(session, row.id)
            if len(page) < QUARANTINE_PIECE:
                return
            after = page[-1].id


def _lanes_of(traces: Traces) -> list[tuple[UUID, str]]:
    """The lanes of what happened to the person, besides the conversation's."""
    lanes = [(org_id, f"call:{vapi_id}") for org_id, _, vapi_id in traces.calls]
    for org_id, message_id, sid in traces.messages:
        lanes += [(org_id, f"message:{message_id}"), (org_id, f"check:{message_id}")]
        lanes += [(org_id, f"message:{sid}")] if sid else []
    return lanes


def _payload_key(table: Table, key: Key) -> tuple[int, UUID]:
    named = dict(zip((column.name for column in table.primary_key.columns), key, strict=True))
    return named["delivery_id"], named["org_id"]
