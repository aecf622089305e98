"""Finished deliveries once more: back in the queue as new, each in a lane of its own.

Owns which may be replayed, one or many, how many of them at a time are due, and the trail of who did it.
Effects that are recorded are not repeated unless that is asked for (``replay_effects.py``); the one thing a
plain replay undoes is a refusal: a text that Twilio refused, and so certainly never sent, may be sent after all.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import InvalidInput, VoicedeskError
from app.models import Delivery, Payload, attempts
from app.models.attempts import WAKE_PER_SECOND
from app.models.deliveries import UNOWNED_ORG_ID, DeliveryFilter, find_payload, last_delivery_id, list_finished
from app.services import audit, replay_effects
from app.services.inspection import get_delivery
from app.services.readable import plain
from app.services.replay_effects import Effect

if TYPE_CHECKING:
    from app.services.platform import Platform

FINISHED = ("processed", "skipped", "dead")
ERASED = "erased"  # the error code of what was erased with a person
PIECE = 100
MOST_SHOWN = 1_000  # of a dry run's deliveries


def replay(
    platform: Platform, delivery_id: int, *, actor: str, org_id: UUID | None = None, repeat_effects: bool = False
) -> dict[str, Any]:
    """Put a finished delivery back into the queue and ring the bell.

    Returns ``id``, ``status``, ``replayed``, ``recorded_effects`` (what exists already), ``repeated`` (how much
    of it is done once more: nothing, unless ``repeat_effects``) and ``bell_rung`` (False: no worker could be told,
    a web process takes it in its next sweep). With an organization given, another's delivery is not there.
    Raises NotFound, and InvalidInput for one that is unfinished, nobody's, was never understood, or was answered
    while somebody waited.
    """
    found = _look(platform, delivery_id, org_id)
    repeated = _reopen(platform, found, actor=actor, repeat_effects=repeat_effects, delay_seconds=0.0)
    return {
        "id": delivery_id,
        "status": "received",
        "replayed": True,
        "recorded_effects": [plain(effect.shown) for effect in found.effects],
        "repeated": repeated,
        "bell_rung": platform.bell.ring_now(),
    }


def preview(platform: Platform, delivery_id: int) -> dict[str, Any]:
    """What a replay of this one would do, and what it would repeat only when asked. Raises as ``replay`` does."""
    return _look(platform, delivery_id, None).shown()


def replay_many(
    platform: Platform, wanted: DeliveryFilter, *, actor: str, limit: int, repeat_effects: bool = False
) -> dict[str, Any]:
    """Replay what fits, at most ``limit``, in the order of intake; each is looked at once, however often it dies.

    An organization's are dated apart at the rate of one account, so that they stand before nothing new of its
    own; other organizations have their turns as always. Returns ``replayed``, ``repeated``, ``not_replayed`` (each
    ``id`` and ``code``), ``more`` (whether some were left by the limit) and ``bell_rung``. Safe to interrupt.
    """
    turns: Counter[UUID] = Counter()
    replayed, repeated, rung = 0, 0, False
    refused: list[dict[str, Any]] = []
    ids, more = _matching(platform, wanted, limit)
    for number, delivery_id in enumerate(ids, start=1):
        try:
            found = _look(platform, delivery_id, None)
            delay = turns[found.delivery.org_id] / WAKE_PER_SECOND
            repeated += _reopen(platform, found, actor=actor, repeat_effects=repeat_effects, delay_seconds=delay)
        except VoicedeskError as error:
            if not isinstance(error, InvalidInput):
                raise
            refused.append({"id": delivery_id, "code": error.code})
            continue
        turns[found.delivery.org_id] += 1
        replayed += 1
        if number % PIECE == 0:
            platform.bell.ring()
    if replayed:
        rung = platform.bell.ring_now()
        _note_the_whole(platform, turns, wanted, actor=actor, repeat_effects=repeat_effects)
    return {"replayed": replayed, "repeated": repeated, "not_replayed": refused, "more": more, "bell_rung": rung}


def preview_many(platform: Platform, wanted: DeliveryFilter, *, limit: int) -> dict[str, Any]:
    """The same without doing it: for each delivery what a replay would do, and repeat only when asked."""
    ids, more = _matching(platform, wanted, min(limit, MOST_SHOWN))
    would: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for delivery_id in ids:
        try:
            would.append(_look(platform, delivery_id, None).shown())
        except InvalidInput as error:
            refused.append({"id": delivery_id, "code": error.code})
    return {
        "dry_run": True,
        "would_replay": len(would),
        "would_repeat_if_asked": sum(len(one["would_repeat_if_asked"]) for one in would),
        "deliveries": would,
        "not_replayable": refused,
        "more": more,
    }


class _Found:
    """A delivery that may be replayed, with what it said and what is recorded of it."""

    def __init__(self, session: Session, delivery: Delivery) -> None:
        self.delivery = delivery
        self.said = _refuse_pointless(delivery, find_payload(session, delivery))
        self.effects: list[Effect] = replay_effects.recorded(session, delivery, self.said)
        self.outstanding = replay_effects.outstanding(session, delivery, self.said)

    def shown(self) -> dict[str, Any]:
        """As a dry run lists it."""
        row = self.delivery
        again = [{**effect.shown, "again": effect.again} for effect in self.effects if effect.again]
        listed: dict[str, Any] = plain(
            {
                "id": row.id,
                "org_id": row.org_id,
                "provider": row.provider,
                "type": row.type,
                "status": row.status,
                "error_code": row.error_code,
                "would_do": self.outstanding,
                "recorded_effects": [effect.shown for effect in self.effects],
                "would_repeat_if_asked": again,
            }
        )
        return listed


def _look(platform: Platform, delivery_id: int, org_id: UUID | None) -> _Found:
    with platform.database.transaction(org_id, system=org_id is None) as session:
        return _Found(session, get_delivery(session, delivery_id))


def _reopen(platform: Platform, found: _Found, *, actor: str, repeat_effects: bool, delay_seconds: float) -> int:
    """Back into the queue, with its line in the trail; how much is repeated. Raises InvalidInput: it was just done."""
    delivery = found.delivery
    replay_effects.lift_refusal(platform, delivery, found.said)
    # Before it is reopened: a crash in between repeats nothing twice, the key of what is repeated stays the same.
    repeated = replay_effects.repeat(platform, delivery, found.effects) if repeat_effects else 0
    with platform.database.transaction(system=True) as session:
        if not attempts.reopen(session, org_id=delivery.org_id, delivery_id=delivery.id, delay_seconds=delay_seconds):
            raise InvalidInput("somebody else has just replayed it", code="unfinished")
        details: dict[str, Any] = {"was": delivery.status} | ({"repeated": repeated} if repeat_effects else {})
        audit.note(session, delivery.org_id, actor=actor, action="replay", subject=str(delivery.id), **details)
    return repeated


def _matching(platform: Platform, wanted: DeliveryFilter, limit: int) -> tuple[list[int], bool]:
    """The ids of what fits now, in the order of intake, and whether there are more; read in pieces."""
    found: list[int] = []
    with platform.database.transaction(system=True) as session:
        until = last_delivery_id(session)
    while len(found) <= limit:
        with platform.database.transaction(system=True) as session:
            after = found[-1] if found else 0
            piece = list_finished(session, wanted, after=after, until=until, limit=min(PIECE, limit + 1 - len(found)))
        found += piece
        if not piece:
            break
    return found[:limit], len(found) > limit


def _note_the_whole(
    platform: Platform, turns: Counter[UUID], wanted: DeliveryFilter, *, actor: str, repeat_effects: bool
) -> None:
    """One line an organization beside those of its deliveries: with which filter, and how many."""
    with platform.database.transaction(system=True) as session:
        for org_id, count in turns.items():
            audit.note(
                session,
                org_id,
                actor=actor,
                action="replay.many",
                subject=str(org_id),
                deliveries=count,
                repeat_effects=repeat_effects,
                filter=plain(wanted.named()),
            )


def _refuse_pointless(delivery: Delivery, said: Payload | None) -> dict[str, Any]:
    """What the delivery said; raises InvalidInput when delivering it again could do nothing."""
    if delivery.status not in FINISHED:
        raise InvalidInput(f"it is not finished: it is {delivery.status} and goes on by itself", code="unfinished")
    if delivery.org_id == UNOWNED_ORG_ID:
        raise InvalidInput("no organization owns it, so nobody could handle it", code="unowned")
    if delivery.error_code == ERASED:
        raise InvalidInput("what it said has been erased on request", code=ERASED)
    if said is not None and said.words_removed_at is not None and _needs_words(delivery, said):
        raise InvalidInput("what it said is not kept any more (`org show` tells for how long)", code="words_gone")
    if said is None or said.body is None:
        raise InvalidInput("it was never understood; only its raw bytes are kept, see `deliveries show`", code="raw")
    if said.answer is not None:
        raise InvalidInput("it was answered while somebody waited; there is nothing left to deliver", code="answered")
    return said.body


def _needs_words(delivery: Delivery, said: Payload) -> bool:
    """Whether its handler could do nothing, or the wrong thing, with what is left of it."""
    return said.body is None or (delivery.provider, delivery.type) == ("twilio", "message.inbound")
