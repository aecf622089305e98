"""What each of Google's answers means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.errors import (
    AlreadyExists,
    CredentialsRefused,
    PreconditionFailed,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
    ResourceGone,
)
from app.integrations.google_calendar.failures import sort_answer, sort_calendar_error, sort_refusal


def answer(reason: str) -> bytes:
    sentence = "Ms Doe, +15005550001, may not"
    error = {"errors": [{"domain": "global", "reason": reason, "message": sentence}], "code": 0, "message": sentence}
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "timeRangeEmpty", ProviderRefused),
        (401, "authError", CredentialsRefused),
        (401, "push.webhookUrlUnauthorized", ProviderRefused),
        (403, "rateLimitExceeded", ProviderThrottled),
        (403, "userRateLimitExceeded", ProviderThrottled),
        (403, "quotaExceeded", ProviderThrottled),
        (403, "forbidden", ProviderRefused),
        (403, "accessNotConfigured", ProviderRefused),
        (404, "notFound", ResourceGone),
        (408, "timeout", ProviderUnavailable),
        (409, "duplicate", AlreadyExists),
        (410, "fullSyncRequired", ResourceGone),
        (412, "conditionNotMet", PreconditionFailed),
        (429, "rateLimitExceeded", ProviderThrottled),
        (500, "backendError", ProviderUnavailable),
        (503, "backendError", ProviderUnavailable),
    ],
)
def test_an_answer_is_sorted_by_status_and_reason_and_tells_nobody_googles_words(
    status: int, reason: str, kind: type[Exception]
) -> None:
    error = sort_answer(status, {}, answer(reason), writes=True)
    assert type(error) is kind
    assert "Doe" not in str(error)
    if isinstance(error, ProviderRefused):
        assert error.provider_code == reason


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"null", b"[]", b'{"error": "x"}', b'{"error": {"errors": [7]}}', b"[" * 100_000]
)
def test_an_answer_without_a_reason_is_sorted_by_its_status(content: bytes) -> None:
    error = sort_answer(403, {}, content, writes=True)
    assert isinstance(error, ProviderRefused)
    assert error.provider_code == "403"


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([{"domain": "global", "reason": "notFound"}], ResourceGone),
        ([{"domain": "global", "reason": "internalError"}], ProviderUnavailable),
        ([{"domain": "calendar", "reason": "tooManyCalendarsRequested"}], ProviderRefused),
        ([{"domain": "usageLimits", "reason": "rateLimitExceeded"}], ProviderThrottled),
        ([], ProviderUnavailable),
        ("odd", ProviderUnavailable),
    ],
)
def test_an_error_about_one_calendar_is_never_a_free_calendar(errors: Any, kind: type[Exception]) -> None:
    assert type(sort_calendar_error(errors)) is kind


@pytest.mark.parametrize("told", [None, "text", {}, {"error": 7}, {"error": "a sentence, with a name"}])
def test_a_refusal_without_a_code_is_a_refusal_all_the_same(told: Any) -> None:
    error = sort_refusal(told)
    assert isinstance(error, CredentialsRefused)
    assert error.provider_code == "token_refused"
