"""What messages say about their call, in the forms of three years."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from app.integrations.vapi import CallFacts, CallReport, call_of, report_of, status_of

BEGAN, ENDED = "2026-11-24T09:30:00.000Z", "2026-11-24T09:32:07.500Z"


def test_a_phone_call_is_read_from_its_parts() -> None:
    facts = call_of(
        {
            "call": {
                "id": "c1",
                "orgId": "o1",
                "type": "inboundPhoneCall",
                "status": "queued",
                "phoneCallProviderId": "CA1",
                "assistantId": "a1",
                "phoneNumberId": "p1",
                "customer": {"number": "+15005550001"},
                "createdAt": BEGAN,
            },
            "phoneNumber": {"number": "+15005550006"},
        }
    )
    assert facts == CallFacts(
        call_id="c1",
        provider_call_id="CA1",
        type="inboundPhoneCall",
        org_id="o1",
        assistant_id="a1",
        phone_number_id="p1",
        dialled_number="+15005550006",
        customer_number="+15005550001",
        created_at=datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
    )


@pytest.mark.parametrize("message", [{}, {"call": None}, {"call": {"id": 7}}, {"call": [], "customer": "x"}])
def test_what_is_not_there_is_none(message: dict[str, Any]) -> None:
    assert call_of(message) == CallFacts()


def test_a_web_call_has_no_numbers() -> None:
    facts = call_of({"call": {"id": "c1", "type": "webCall"}, "customer": {}, "assistant": {"id": "a9"}})
    assert (facts.customer_number, facts.dialled_number, facts.assistant_id) == (None, None, "a9")


def test_a_status_is_the_messages_own_and_never_the_snapshots() -> None:
    said = status_of({"status": "ended", "endedReason": "customer-busy", "call": {"status": "queued"}, "timestamp": 0})
    assert said == ("ended", "customer-busy", datetime(1970, 1, 1, tzinfo=UTC))
    assert status_of({"call": {"status": "ended"}}).status is None


def test_a_report_of_2024_has_everything_at_the_top() -> None:
    report = report_of(
        {
            "endedReason": "customer-ended-call",
            "transcript": "AI: Hello.",
            "summary": "A greeting.",
            "cost": 0.1931,
            "recordingUrl": "https://r.example/1.wav",
            "durationSeconds": 127.5,
            "startedAt": BEGAN,
            "endedAt": ENDED,
            "call": {"id": "c1", "cost": 0},
        }
    )
    assert report == CallReport(
        ended_reason="customer-ended-call",
        transcript="AI: Hello.",
        summary="A greeting.",
        cost=Decimal("0.1931"),
        recording_url="https://r.example/1.wav",
        duration_seconds=Decimal("127.500"),
        started_at=datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
        ended_at=datetime(2026, 11, 24, 9, 32, 7, 500000, UTC),
    )


def test_a_report_of_today_has_it_beneath() -> None:
    report = report_of(
        {
            "endedReason": "assistant-ended-call",
            "artifact": {"transcript": "AI: Bye.", "recording": {"mono": {"combinedUrl": "https://r.example/m.wav"}}},
            "analysis": {"summary": "Bye.", "structuredData": {"booked": True}, "successEvaluation": True},
            "costs": [{"type": "vapi", "cost": 0.05}, {"type": "model", "cost": 0.01}, {"type": "odd"}],
            "startedAt": BEGAN,
            "endedAt": ENDED,
        }
    )
    assert (report.transcript, report.summary, report.recording_url) == ("AI: Bye.", "Bye.", "https://r.example/m.wav")
    assert (report.cost, report.duration_seconds) == (Decimal("0.06"), Decimal("127.5"))
    assert (report.structured_data, report.success_evaluation) == ({"booked": True}, "true")


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [({"durationMs": 2500}, "2.5"), ({"durationMinutes": 2.5}, "150"), ({"durationSeconds": -1}, None), ({}, None)],
)
def test_a_duration_comes_in_several_units(fields: dict[str, Any], seconds: str | None) -> None:
    assert report_of(fields).duration_seconds == (Decimal(seconds) if seconds else None)


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({"cost": 0}, "0"),
        ({"costBreakdown": {"total": 0.25}}, "0.25"),
        ({"cost": "NaN"}, None),
        ({"cost": True}, None),
        ({"cost": 1e30}, None),
        ({"cost": [1]}, None),
        ({}, None),
    ],
)
def test_a_cost_is_a_number_or_nothing(fields: dict[str, Any], cost: str | None) -> None:
    assert report_of(fields).cost == (Decimal(cost) if cost is not None else None)


def test_structured_data_that_is_no_object_is_kept_all_the_same() -> None:
    assert report_of({"analysis": {"structuredData": ["a"]}}).structured_data == {"value": ["a"]}
    assert report_of({"analysis": {"structuredData": {}}}).structured_data is None


def test_an_empty_report_is_empty() -> None:
    assert report_of({"analysis": None, "artifact": "x", "transcript": 7, "recordingUrl": "ftp://x"}) == CallReport()
