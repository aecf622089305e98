"""Calls as they happened: one row, put together from events that come in any order.

Owns what of a call is kept. States only move forward; a late older event is merged, not applied.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.orm import Session

from app.integrations.events import InboundEvent
from app.integrations.vapi import CallFacts, CallReport, call_of, report_of, status_of
from app.models.calls import WORDS_OF_CALL, find_call, merge_call
from app.services import consent, notices, retention
from app.services.delivery import Skip, Work
from app.services.directory import Business

if TYPE_CHECKING:
    from app.services.platform import Platform


def record_status(work: Work) -> Skip | None:
    """Handler of ``status-update``."""
    payload = work.delivery.body or {}
    call = call_of(payload)
    if call.call_id is None:
        return Skip("the event names no call")
    status, ended_reason, at = status_of(payload)
    facts = {**_facts(work), "ended_reason": ended_reason}
    if status == "in-progress":
        facts["started_at"] = at
    if status == "ended":
        facts["ended_at"] = at
    with work.platform.database.transaction(work.delivery.org_id) as session:
        merge_call(session, work.delivery.org_id, call.call_id, status=status, facts=facts)
    return None


def record_report(work: Work) -> Skip | None:
    """Handler of ``end-of-call-report``: transcript, summary, cost, recording."""
    payload = work.delivery.body or {}
    call = call_of(payload)
    if call.call_id is None:
        return Skip("the event names no call")
    report = report_of(payload)
    facts = {
        **_facts(work),
        "started_at": report.started_at,
        "ended_at": report.ended_at,
        "ended_reason": report.ended_reason,
        "duration_seconds": report.duration_seconds,
        "cost": report.cost,
        "summary": report.summary,
        "transcript": report.transcript,
        "recording_url": report.recording_url,
        "structured_data": report.structured_data,
        "success_evaluation": report.success_evaluation,
        "reported_at": work.delivery.occurred_at or work.delivery.received_at,
    }
    if retention.stores_nothing(work.platform, work.delivery.org_id):
        facts = {name: fact for name, fact in facts.items() if name not in WORDS_OF_CALL}
    business = work.platform.directory.business(work.delivery.org_id)
    with work.platform.database.transaction(work.delivery.org_id) as session:
        facts |= _consent_heard(session, business, call.call_id, report)
        merge_call(session, work.delivery.org_id, call.call_id, status="ended", facts=facts)
        notices.plan_of_call(session, business, call.call_id, phone=call.customer_number)
    work.platform.bell.ring()
    return None


def note_consent(platform: Platform, org_id: UUID, event: InboundEvent, sentence: str) -> None:
    """The call was told to begin with this sentence: keep it with the call. Safe to repeat; the first one stands.

    Raises DatabaseUnavailable.
    """
    call = call_of(event.payload)
    if call.call_id is None:
        return
    facts = {**_facts_of(call), "consent_sentence": sentence, "consent_at": datetime.now(UTC)}
    with platform.database.transaction(org_id) as session:
        known = find_call(session, org_id, call.call_id)
        if known is None or known.consent_sentence is None:
            merge_call(session, org_id, call.call_id, status="ringing", facts=facts)


def _consent_heard(session: Session, business: Business, call_id: str, report: CallReport) -> dict[str, object]:
    """What the call began with, where nobody asked who takes it and so nothing was noted when it rang."""
    said, sentence = report.opening, business.consent_sentence
    if said is None or not sentence or not consent.begins(said.words, sentence):
        return {}
    known = find_call(session, business.id, call_id)
    if known is not None and known.consent_sentence is not None:
        return {}
    return {"consent_sentence": sentence, "consent_at": said.at or report.started_at}


def _facts(work: Work) -> dict[str, object]:
    return _facts_of(call_of(work.delivery.body or {}))


def _facts_of(call: CallFacts) -> dict[str, object]:
    return {
        "provider_call_id": call.provider_call_id,
        "type": call.type,
        "assistant_id": call.assistant_id,
        "customer_number": call.customer_number,
        "dialled_number": call.dialled_number,
    }
