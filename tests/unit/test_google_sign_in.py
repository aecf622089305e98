"""Signing in to Google: tokens shared by calls and threads, refused, and where they come from."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import (
    CredentialsRefused,
    DeadlineExceeded,
    ProviderUnavailable,
)
from app.integrations.google_calendar import GoogleCalendar, GoogleCalendarCredentials
from app.integrations.google_calendar.calls import token_uri_beside
from sandbox.standins.world import RemoteWorld
from tests.google_calendar import CALENDAR, NOON, TEN, consent, insert


@pytest.mark.usefixtures("google")
class TestSigningIn:
    def test_one_token_serves_many_calls_and_threads(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        with ThreadPoolExecutor(8) as pool:
            for asked in [pool.submit(google.busy, owner, start=TEN, end=NOON) for _ in range(24)]:
                asked.result()
        assert len(world.requests("google", "issue_token")) == 1

    def test_a_token_that_google_refuses_is_replaced_once(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        google.busy(owner, start=TEN, end=NOON)
        world.expire_tokens()
        insert(google, owner)
        assert len(world.requests("google", "issue_token")) == 2
        assert len(world.events(CALENDAR)) == 1

    def test_a_service_account_signs_in_for_itself_and_for_a_person(
        self, google: GoogleCalendar, world: RemoteWorld
    ) -> None:
        own, delegated = world.service_account(), world.service_account(delegated=True)
        world.calendar(CALENDAR, shared_with=[own["client_email"], "boss@example.com"])
        for account, more in ((own, {}), (delegated, {"subject": "boss@example.com"})):
            credentials = GoogleCalendarCredentials.model_validate(
                {"service_account_json": json.dumps(account), "calendar_id": CALENDAR, **more}
            )
            assert google.busy(credentials, start=TEN, end=NOON) == []

    def test_a_withdrawn_consent_is_refused_with_advice(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        world.revoke(refresh_token="refresh")
        with pytest.raises(CredentialsRefused) as refused:
            google.busy(owner, start=TEN, end=NOON)
        assert (refused.value.provider_code, bool(refused.value.advice)) == ("invalid_grant", True)

    @pytest.mark.parametrize(
        "credentials",
        [
            consent(client_secret="wrong"),
            GoogleCalendarCredentials.model_validate({"channel_token": "t"}),
            GoogleCalendarCredentials.model_validate(
                {
                    "service_account_json": json.dumps(
                        {"type": "service_account", "client_email": "x", "private_key": "no key"}
                    )
                }
            ),
        ],
    )
    def test_credentials_that_cannot_work_are_refused(
        self, google: GoogleCalendar, credentials: GoogleCalendarCredentials
    ) -> None:
        with pytest.raises(CredentialsRefused):
            google.busy(credentials, start=TEN, end=NOON)

    @pytest.mark.parametrize("kind", ["error_500", "cut_before"])
    def test_a_token_endpoint_that_is_down_is_asked_once_and_nothing_was_done(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld, kind: str
    ) -> None:
        world.fault("google", kind, operation="issue_token")
        began = time.monotonic()
        with pytest.raises(ProviderUnavailable) as failed:
            insert(google, owner)
        assert not failed.value.maybe_done
        assert time.monotonic() - began < 0.9  # google-auth by itself would sleep three seconds
        assert len(world.requests("google", "issue_token")) == 1

    def test_a_token_endpoint_that_hangs_is_not_waited_for(
        self, google: GoogleCalendar, owner: GoogleCalendarCredentials, world: RemoteWorld
    ) -> None:
        world.fault("google", "hang", operation="issue_token")
        with pytest.raises(DeadlineExceeded) as late:
            insert(google, owner, timeout_seconds=0.3)
        assert not late.value.maybe_done

    @pytest.mark.parametrize(
        ("base", "token_uri"),
        [
            ("https://www.googleapis.com/calendar/v3/", "https://oauth2.googleapis.com/token"),
            ("http://127.0.0.1:9/google/calendar/v3/", "http://127.0.0.1:9/token"),
            ("https://notgoogleapis.com/calendar/v3/", "https://notgoogleapis.com/token"),
        ],
    )
    def test_tokens_come_from_google_or_from_beside_its_stand_in(self, base: str, token_uri: str) -> None:
        assert token_uri_beside(base) == token_uri
