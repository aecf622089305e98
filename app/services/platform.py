"""Everything a service needs, built once per process from the settings.

Owns the wiring, and nothing else: web processes, workers and the command line all build one and
pass it on. No service looks anything up globally.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from datetime import timedelta

from app.config import Environment, Settings
from app.database import Database
from app.errors import ConfigurationError, DatabaseUnavailable
from app.integrations.breaker import circuits
from app.integrations.forwarder import Forwarder
from app.integrations.google_calendar import GoogleCalendar
from app.integrations.rates import Rates
from app.integrations.slack import SlackAlerts
from app.integrations.target_circuits import target_circuits
from app.integrations.twilio import TwilioMessages
from app.integrations.vapi import VapiClient
from app.queue import Bell
from app.redis import RedisAway, RedisLink
from app.services.api_keys import ApiKeys
from app.services.caretaker import Caretaker
from app.services.credentials import Vault
from app.services.delivery import Handler
from app.services.directory import Directory
from app.services.error_counts import ErrorCounts
from app.services.forwarding import Turns
from app.services.grouping import Groups
from app.services.handlers import find_handler
from app.services.lately import Lately
from app.services.measurements import Measurements
from app.services.nightly import Nightly
from app.services.quotas import Quotas
from app.services.reconciliation.periodic import Reconciler
from app.services.recording import Recorder
from app.services.refusals import Refusals
from app.services.spool import Spool
from app.services.spool_drain import SpoolKeeper
from app.services.waking import Waker
from app.services.watch import Watcher

LONGEST_WAIT_FOR_DATABASE = timedelta(seconds=2)


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
        self.rates = Rates(self.redis)
        self.forwarder = Forwarder(
            private_allowed=settings.forward_private_targets,
            plain_allowed=settings.environment is not Environment.PRODUCTION,
        )
        self.forward_turns = Turns(settings.worker_threads if kind == "worker" else settings.fallback_threads)
        self.groups = Groups(self.database)
        self.recorder = Recorder(self.database, self.process_name)
        self.bell = Bell(self.redis)
        self.on_stuck: Callable[[], None] | None = None  # whoever can end this process
        self.waker = Waker(self)
        self.spool = Spool(settings, self.vault)
        self.spool_keeper = SpoolKeeper(self)
        self.caretaker = Caretaker(self)
        self.lately = Lately()
        self.measurements = Measurements(self)
        self.watcher = Watcher(self)
        self.nightly = Nightly(self)
        self.reconciler = Reconciler(self)
        for registry in (circuits, target_circuits):
            registry.connect(self.redis, settings.circuit_open_seconds, settings.circuit_failures)
            registry.on_change(self.waker.circuit_changed)

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

    def meet_everybody(self) -> None:
        """Get to know all organizations before the first of them comes; without a database, whenever it is back."""
        with contextlib.suppress(DatabaseUnavailable, ConfigurationError):  # whoever needs it says so
            self.directory.keep_fresh()

    def start_web(self) -> None:
        """Begin what a web process does beside its requests: the sync fallback, the sweep, the spool, the watcher."""
        self.meet_everybody()
        self.bell.on_silence = self.caretaker.nudge
        self.caretaker.start()
        self.spool_keeper.start()
        self.watcher.start()

    def close(self) -> None:
        """End in order: claim nothing more, finish what runs, then let the connections go."""
        self.bell.on_silence = None  # or a last ring would begin the caretaker anew
        self.caretaker.stop()
        self.spool_keeper.stop()
        self.watcher.stop()
        self.nightly.stop()
        self.reconciler.stop()
        self.bell.stop()
        self.error_counts.stop()
        self.database.dispose()
