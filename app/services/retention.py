"""How long what people say is kept: an organization's transcripts, recording links and texts, wherever they stand.

Owns the rule. For 0 days nothing is stored past the moment its handler needs it: the copy in a delivery goes with
the delivery's end, in the same commit, a text when it has arrived, an answer with its call. What failed keeps its
words for a day, or nobody could replay it. For more days the nightly cleanup empties what is older. Rows stay:
ids, numbers, times and costs are not words. Where words stand in a payload is each integration's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import DatabaseUnavailable
from app.integrations import twilio, vapi
from app.models import words
from app.models.deliveries import CANARY_ORG_ID, INTERNAL_PROVIDER, UNOWNED_ORG_ID
from app.models.lanes import QueuedDelivery

if TYPE_CHECKING:
    from app.services.platform import Platform

Body = dict[str, Any]
DAYS = range(3_651)
LONGEST_CONSENT = 500

_REDUCE: dict[str, Callable[[Body], Body]] = {"vapi": vapi.without_words, "twilio": twilio.without_words}
_REDUCE_ANSWER: dict[str, Callable[[Body], Body]] = {"vapi": vapi.answer_without_words}
_WORDLESS = {INTERNAL_PROVIDER, "google-calendar"}  # ids and times alone


def stores_nothing(platform: Platform, org_id: UUID) -> bool:
    """Whether the organization wants no words stored at all. Of one that cannot be asked, the cleanup takes care."""
    if org_id in (CANARY_ORG_ID, UNOWNED_ORG_ID):
        return False
    try:
        business = platform.directory.find_business(org_id)
    except DatabaseUnavailable:
        return False
    return business is not None and business.keep_words_days == 0


def without_words(provider: str, body: Body | None) -> Body | None:
    """What may be kept of a payload; nothing, where nobody has said which part of it is words."""
    if body is None or provider in _WORDLESS:
        return body
    reduce = _REDUCE.get(provider)
    return reduce(body) if reduce else None


def answer_without_words(provider: str, answer: Body | None) -> Body | None:
    """The same of what was answered."""
    reduce = _REDUCE_ANSWER.get(provider)
    return reduce(answer) if answer is not None and reduce else None


def forget(session: Session, delivery: QueuedDelivery) -> None:
    """The delivery has come to its end: keep no words of it, in the caller's transaction. Safe to repeat."""
    org_id, body = delivery.org_id, delivery.body or {}
    kept = without_words(delivery.provider, delivery.body)
    words.empty_payload(session, org_id, delivery.id, body=kept, answer=None)
    if delivery.provider == "twilio" and "_" in body:
        words.empty_arrived(session, org_id, ids=[], sids=[body["_"]["message_sid"]])
    elif delivery.provider == INTERNAL_PROVIDER and "message_id" in body:
        words.empty_arrived(session, org_id, ids=[UUID(body["message_id"])], sids=[])
    elif (delivery.provider, delivery.type) == ("vapi", "end-of-call-report"):
        call_id = vapi.call_of(body).call_id
        if call_id is not None:
            words.empty_answers_of(session, org_id, call_id)


def empty_payloads(session: Session, org_id: UUID, *, after: int, most: int) -> tuple[int, int | None]:
    """Reduce what the organization's next old deliveries said; how many, and the last one's id (None: the end)."""
    said = words.lock_said(session, org_id, after=after, most=most)
    for one in said:
        words.empty_payload(
            session,
            org_id,
            one.id,
            body=without_words(one.provider, one.body),
            answer=answer_without_words(one.provider, one.answer),
        )
    return len(said), said[-1].id if len(said) == most else None
