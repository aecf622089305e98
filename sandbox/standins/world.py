"""The hand on the strings: a client of ``/_control`` that sets up, breaks and inspects the world.

Owns the Python names of all controls; the same class serves stand-ins in this process and in another.
"""

from __future__ import annotations

import secrets
from datetime import date, datetime
from typing import Any

import requests

CONTROL_SECONDS = 10.0
Moment = datetime | date | str


class ControlRefused(Exception):
    """The stand-ins could not do what the control asked; the message says why."""


class RemoteWorld:
    """The stand-ins at ``url``. Thread-safe; every call is one HTTP request of at most 10 s."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.twilio_url = f"{self.url}/twilio"
        self.google_url = f"{self.url}/google/calendar/v3/"
        self.token_url = f"{self.url}/token"
        self.vapi_url = f"{self.url}/vapi"
        self.slack_url = f"{self.url}/slack/api/"

    # --- the whole world ---------------------------------------------------------------------

    def fault(
        self,
        provider: str,
        kind: str,
        *,
        operation: str | None = None,
        times: int | None = None,
        seconds: float = 1.0,
        retry_after: int | None = 1,
    ) -> None:
        """Switch on a fault: a ``kind`` of faults.KINDS at twilio, google, vapi or slack.

        ``operation`` is the name of a stand-in's method (``create_message``, ``insert_event``...), None for
        all but ``issue_token``; ``times`` how many requests it affects; ``seconds`` how slow ``slow`` is.
        """
        self._do(
            "fault",
            provider=provider,
            kind=kind,
            operation=operation,
            times=times,
            seconds=seconds,
            retry_after=retry_after,
        )

    def clear_faults(self, provider: str | None = None) -> None:
        """Switch off all faults (of one provider); what hangs is cut."""
        self._do("clear_faults", provider=provider)

    def faults(self) -> list[dict[str, Any]]:
        """The faults that are switched on; ``times`` counts down."""
        return list(self._do("faults"))

    def requests(self, provider: str | None = None, operation: str | None = None) -> list[dict[str, Any]]:
        """All remembered requests, the oldest first; ``status`` is None where the connection was cut."""
        return list(self._do("requests", provider=provider, operation=operation))

    def latency(self, seconds: float) -> None:
        """Make every answer of a provider take this long."""
        self._do("latency", seconds=seconds)

    def reset(self) -> None:
        """Forget everything and switch off all faults."""
        self._do("reset")

    # --- Twilio ------------------------------------------------------------------------------

    def twilio_account(
        self,
        sid: str,
        token: str,
        numbers: list[str],
        *,
        messaging_services: dict[str, list[str]] | None = None,
        contents: dict[str, str] | None = None,
        api_keys: dict[str, str] | None = None,
        trial: bool = False,
    ) -> None:
        """An account with its senders (``+1...`` and ``whatsapp:+1...``), services, templates and API keys."""
        self._do(
            "twilio_account",
            sid=sid,
            token=token,
            numbers=numbers,
            messaging_services=messaging_services,
            contents=contents,
            api_keys=api_keys,
            trial=trial,
        )

    def twilio_recipient(
        self, number: str, *, refuse: int | None = None, fail: int | None = None, window_open: bool | None = None
    ) -> None:
        """A number that is refused at the POST, or fails afterwards, with a code; or its WhatsApp window."""
        self._do("twilio_recipient", number=number, refuse=refuse, fail=fail, window_open=window_open)

    def twilio_settings(self, **changes: Any) -> dict[str, Any]:
        """Change how messages go on (twilio_delivery.DEFAULT_SETTINGS); the answer is what is in force."""
        return dict(self._do("twilio_settings", **changes))

    def delayed_listing(self, seconds: float) -> None:
        """Show new messages in the list only after this time."""
        self.twilio_settings(listing_delay=seconds)

    def opt_out(self, recipient: str, sender: str | None = None) -> None:
        """The recipient has texted STOP (to one sender, or to all)."""
        self._do("opt_out", recipient=recipient, sender=sender)

    def opt_in(self, recipient: str, sender: str | None = None) -> None:
        """The recipient has texted START."""
        self._do("opt_in", recipient=recipient, sender=sender)

    def messages(self) -> list[dict[str, Any]]:
        """All messages taken, the oldest first."""
        return list(self._do("messages"))

    def inbound_message(
        self,
        account: str,
        sender: str,
        recipient: str,
        body: str,
        *,
        sid: str | None = None,
        sent_at: datetime | None = None,
    ) -> str:
        """Somebody texts a number of the account, and Twilio tells nobody; the answer is its SID."""
        given = {"account": account, "sender": sender, "recipient": recipient, "body": body, "sid": sid}
        return str(self._do("inbound_message", **given, sent_at=sent_at.isoformat() if sent_at else None))

    def callbacks(self) -> list[dict[str, Any]]:
        """All status callbacks made: sid, status, url, answer, attempts, at."""
        return list(self._do("callbacks"))

    def twilio_numbers(self) -> dict[str, dict[str, Any]]:
        """How the incoming numbers and Messaging Services stand that were asked for, by number or SID."""
        return dict(self._do("twilio_numbers"))

    # --- Google ------------------------------------------------------------------------------

    def calendar(self, calendar_id: str, timezone: str = "UTC", shared_with: list[str] | None = None) -> None:
        """A calendar, seen by everybody or only by these e-mail addresses; its events stay when it exists."""
        self._do("calendar", calendar_id=calendar_id, timezone=timezone, shared_with=shared_with)

    def google_client(
        self, client_id: str, client_secret: str, refresh_token: str, email: str = "owner@example.com", **more: Any
    ) -> None:
        """A consent: this refresh token acts as ``email`` through this client (``scope``: all of calendar)."""
        given = {"client_id": client_id, "client_secret": client_secret, "refresh_token": refresh_token}
        self._do("google_client", **given, email=email, **more)

    def google_oauth_client(self, client_id: str, client_secret: str, redirect_uris: list[str]) -> None:
        """An application that may ask people for their consent, and where it may send them back to."""
        self._do("google_oauth_client", client_id=client_id, client_secret=client_secret, redirect_uris=redirect_uris)

    def google_person(self, email: str, *, refuses: bool = False, scope: str | None = None) -> None:
        """Who sits at the browser and consents: to all that is asked, to ``scope`` alone, or not at all."""
        self._do("google_person", email=email, refuses=refuses, scope=scope)

    def service_account(self, email: str | None = None, *, delegated: bool = False) -> dict[str, str]:
        """The JSON key file of a new service account; its token_uri points here."""
        email = email or f"desk-{secrets.token_hex(4)}@standin.iam.gserviceaccount.com"
        return dict(self._do("service_account", token_uri=self.token_url, email=email, delegated=delegated))

    def revoke(self, *, refresh_token: str | None = None, email: str | None = None) -> None:
        """Take back a consent or a service account's key: invalid_grant from now on."""
        self._do("revoke", refresh_token=refresh_token, email=email)

    def expire_tokens(self, seconds: int | None = None) -> None:
        """Expire all access tokens; new ones live ``seconds``."""
        self._do("expire_tokens", seconds=seconds)

    def expire_sync_tokens(self, calendar_id: str) -> None:
        """Make every sync token given out so far a 410."""
        self._do("expire_sync_tokens", calendar_id=calendar_id)

    def events(self, calendar_id: str) -> list[dict[str, Any]]:
        """All events as Google shows them, cancelled ones included."""
        return list(self._do("events", calendar_id=calendar_id))

    def insert_foreign_event(self, calendar_id: str, start: Moment, end: Moment, **fields: Any) -> dict[str, Any]:
        """A person enters an event (``summary=``, ``transparency=``...); times without offset are local."""
        edges = {"start": _text(start), "end": _text(end)}
        return dict(self._do("insert_foreign_event", calendar_id=calendar_id, **edges, **fields))

    def move_event(self, calendar_id: str, event_id: str, start: Moment, end: Moment) -> dict[str, Any]:
        """A person drags an event to another time."""
        edges = {"start": _text(start), "end": _text(end)}
        return dict(self._do("move_event", calendar_id=calendar_id, event_id=event_id, **edges))

    def delete_event(self, calendar_id: str, event_id: str) -> None:
        """A person deletes an event."""
        self._do("delete_event", calendar_id=calendar_id, event_id=event_id)

    def pushes(self, *, via: str | None = None, channel_seconds: float | None = None) -> None:
        """How notifications travel: to this server instead of the address's; and how long new channels live."""
        self._do("pushes", via=via, channel_seconds=channel_seconds)

    def channels(self, calendar_id: str) -> list[dict[str, Any]]:
        """The calendar's push channels, the oldest first; ``lives`` unless stopped or expired."""
        return list(self._do("channels", calendar_id=calendar_id))

    def notifications(self) -> list[dict[str, Any]]:
        """All notifications posted: channel_id, number, state, answer (HTTP status), attempts, at."""
        return list(self._do("notifications"))

    def notify(self, calendar_id: str, times: int = 1) -> None:
        """Post notifications though nothing has changed, as Google does now and then."""
        self._do("notify", calendar_id=calendar_id, times=times)

    # --- Vapi and Slack ----------------------------------------------------------------------

    def vapi_key(self, key: str, org_id: str | None = None) -> str:
        """A private key; the answer is its organization's id at Vapi."""
        return str(self._do("vapi_key", key=key, org_id=org_id))

    def assistant(
        self, key: str, name: str = "Receptionist", assistant_id: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        """An assistant of the key's organization; ``fields`` are Vapi's, such as ``firstMessage``."""
        return dict(self._do("assistant", key=key, name=name, assistant_id=assistant_id, **fields))

    def phone_number(self, key: str, number: str, phone_number_id: str | None = None, **fields: Any) -> dict[str, Any]:
        """A phone number of the key's organization; ``fields`` are Vapi's, such as ``assistantId``."""
        return dict(self._do("phone_number", key=key, number=number, phone_number_id=phone_number_id, **fields))

    def vapi_settings(self) -> dict[str, list[dict[str, Any]]]:
        """Everything configured at Vapi: ``assistants``, ``phone_numbers``, ``tools``, ``credentials`` with secrets."""
        return dict(self._do("vapi_settings"))

    def put_call(self, key: str, **fields: Any) -> dict[str, Any]:
        """Add a call, or change the one with this ``id``."""
        return dict(self._do("put_call", key=key, **fields))

    def calls(self) -> list[dict[str, Any]]:
        """All calls Vapi knows."""
        return list(self._do("calls"))

    def slack_token(self, token: str, scopes: list[str] | None = None) -> None:
        """A bot token, with what alerts need unless ``scopes`` says otherwise."""
        self._do("slack_token", token=token, scopes=scopes)

    def slack_channel(self, channel_id: str, name: str, *, member: bool = True, archived: bool = False) -> None:
        """A channel, and whether the bot is in it."""
        self._do("slack_channel", channel_id=channel_id, name=name, member=member, archived=archived)

    def slack_posts(self) -> list[dict[str, Any]]:
        """All posted messages, the oldest first."""
        return list(self._do("slack_posts"))

    def _do(self, control: str, **arguments: Any) -> Any:
        with requests.Session() as session:
            session.trust_env = False  # a proxy of this machine knows nothing of the stand-ins
            answer = session.post(f"{self.url}/_control/{control}", json=arguments, timeout=CONTROL_SECONDS)
        if answer.status_code != 200:
            raise ControlRefused(answer.json().get("error", "") if answer.status_code < 500 else "internal error")
        return answer.json()


def _text(moment: Moment) -> str:
    return moment if isinstance(moment, str) else moment.isoformat()
