"""Everything a service needs, built once per process from the settings.

Owns the wiring, and nothing else: web processes, workers and the command line all build one and
pass it on. No service looks anything up globally.
"""

from __future__ import annotations

import os
import socket
import threading
from datetime import timedelta

from app.config import Settings
from app.database import Database
from app.errors import DatabaseUnavailable
from app.integrations.breaker import circuits
from app.integrations.google_calendar import GoogleCalendar
from app.integrations.slack import SlackAlerts
from app.integrations.twilio import TwilioMessages
from app.integrations.vapi import VapiClient
from app.models.attempts import wake_waiting
from app.observability.errors import report
from app.observability.logging import get_logger
from app.queue import Bell
from app.redis import RedisAway, RedisLink
from app.services.api_keys import ApiKeys
from app.services.caretaker import Caretaker
from app.services.credentials import Vault
from app.services.delivery import Handler
from app.services.directory import Directory
from app.services.error_counts import ErrorCounts
from app.services.handlers import find_handler
from app.services.lately import Lately
from app.services.measurements import Measurements
from app.services.nightly import Nightly
from app.services.quotas import Quotas
from app.services.reconciliation.periodic import Reconciler
from app.services.refusals import Refusals
from app.services.watch import Watcher

LONGEST_WAIT_FOR_DATABASE = timedelta(seconds=2)

log = get_logger(__name__)


class Platform:
    """One process's platform. ``kind`` says of which: ``web``, ``worker`` or ``cli``."""

    def __init__(self, settings: Settings, *, kind: str = "web") -> None:
        self.settings = settings
        self.kind = kind
        self.database = Database(settings)
        self.redis = RedisLink.from_settings(settings)
        self.error_counts = ErrorCounts(self.redis)
        self.vault = Vault(settings.credentials_keys)
        self.directory = Directory(self.database, self.vault)
        self.api_keys = ApiKeys(self.database)
        self.quotas = Quotas(self.redis)
        self.refusals = Refusals(settings.webhook_failures_per_minute)
        self.twilio = TwilioMessages(settings.twilio_api_base_url)
        self.google = GoogleCalendar(settings.google_calendar_api_base_url)
        self.vapi = (
            VapiClient(settings.vapi_api_base_url, settings.vapi_private_key) if settings.vapi_private_key else None
        )
        self.slack = (
            SlackAlerts(settings.slack_api_base_url, settings.slack_bot_token, settings.slack_alert_channel)
            if settings.slack_bot_token and settings.slack_alert_channel
            else None
        )
        self.bell = Bell(self.redis)
        self.caretaker = Caretaker(self)
        self.lately = Lately()
        self.measurements = Measurements(self)
        self.watcher = Watcher(self)
        self.nightly = Nightly(self)
        self.reconciler = Reconciler(self)
        circuits.connect(self.redis, settings.circuit_open_seconds, settings.circuit_failures)
        circuits.on_change(self._circuit_changed)

    def handler(self, provider: str, event_type: str) -> Handler:
        """The handler of an event's type."""
        return find_handler(provider, event_type)

    def process_name(self) -> str:
        """Who delivers here: ``<kind>:<host>:<pid>``. Asked anew each time, because of forks."""
        return f"{self.kind}:{socket.gethostname()}:{os.getpid()}"

    def redis_answers(self) -> bool:
        """Whether Redis answers just now (and is configured)."""
        try:
            return bool(self.redis.use(lambda redis: redis.ping()))
        except RedisAway:
            return False

    def start_web(self) -> None:
        """Begin what a web process does beside its requests: the sync fallback, the sweep, the watcher."""
        self.bell.on_silence = self.caretaker.nudge
        self.caretaker.start()
        self.watcher.start()

    def close(self) -> None:
        """End in order: claim nothing more, finish what runs, then let the connections go."""
        self.bell.on_silence = None  # or a last ring would begin the caretaker anew
        self.caretaker.stop()
        self.watcher.stop()
        self.nightly.stop()
        self.reconciler.stop()
        self.bell.stop()
        self.error_counts.stop()
        self.database.dispose()

    def _circuit_changed(self, circuit: str, old: str, new: str) -> None:
        log.warning("circuit.changed", circuit=circuit, was=old, now=new)
        if new == "closed":
            # In a thread: it is a provider's call that closes a circuit, and its caller may be waiting.
            threading.Thread(target=self._wake, args=(circuit,), name="wake", daemon=True).start()

    def _wake(self, circuit: str) -> None:
        try:
            with self.database.transaction(system=True) as session:
                woken = wake_waiting(session, circuit)
        except DatabaseUnavailable:
            return  # they have a date of their own
        except Exception as error:  # noqa: BLE001 - a thread's end; they have a date of their own
            report(error, where="thread", event="circuit.not_woken", circuit=circuit)
            return
        log.info("circuit.woken", circuit=circuit, deliveries=woken)
        self.bell.ring()
