"""The whole product under measurement: gunicorn, `rq worker`, everything switched on, on the ground's servers.

Owns its processes and its organizations. Nothing of the product is left out or patched: roles and row-level
security, dedup, limits, metrics, structured logs, durable commits.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import requests
from cryptography.fernet import Fernet

from app.config import Settings, environment_of, load_settings
from app.models import Integration, Organization
from app.models.inbox import NewDelivery, insert_webhooks
from app.services.credentials import parse_credentials
from app.services.platform import Platform
from benchmarks.ground import PRODUCT, Ground
from sandbox.children import start_child, stop_child
from sandbox.ports import LOOPBACK, free_port

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
READY_SECONDS = 40.0
STOP_SECONDS = 30.0
FILL_AT_ONCE = 500
ALWAYS_OPEN = {day: [["00:00", "23:59"]] for day in ("mon", "tue", "wed", "thu", "fri", "sat", "sun")}


@dataclass(frozen=True, slots=True)
class Business:
    """An organization and its door."""

    id: UUID
    target: str
    secret: str


class Product:
    """Voicedesk on the ground's servers; its tables are made at once, its processes when they are asked for."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.port = free_port()
        self.base_url = f"http://{LOOPBACK}:{self.port}"
        self._metrics = ground.folder / "metrics"
        self._metrics.mkdir()
        self.settings: Settings = load_settings(
            environment="test",
            database_url=ground.app_url,
            migration_database_url=ground.owner_url,
            redis_url=ground.valkey.url,
            public_base_url=self.base_url,
            credentials_keys=[Fernet.generate_key().decode()],
            webhook_quota_per_hour=1_000_000_000,
            api_quota_per_hour=1_000_000_000,
            metrics_dir=str(self._metrics),
            log_format="json",
        )
        self._run_flask("db", "upgrade")
        self.platform = Platform(self.settings)
        self.business = self.open_business("North Street Salon")

    def close(self) -> None:
        """Give back this process's connections."""
        self.platform.close()

    def open_business(self, name: str) -> Business:
        """An organization with an integration whose messages are signed by HMAC."""
        return self.open_businesses([name])[0]

    def open_businesses(self, names: Sequence[str]) -> list[Business]:
        """Many of them, in one transaction."""
        opened = [
            Business(uuid4(), f"/webhooks/vapi/{secrets.token_urlsafe(18)}", secrets.token_hex(16)) for _ in names
        ]
        with self.platform.database.transaction(system=True) as session:
            session.add_all(
                Organization(id=one.id, name=name, timezone="Europe/Berlin", opening_hours=ALWAYS_OPEN, slot_minutes=30)
                for one, name in zip(opened, names, strict=True)
            )
            session.flush()
            for one in opened:
                keys = {"webhook_secret": one.secret, "hmac_encoding": "hex"}
                sealed = self.platform.vault.seal(parse_credentials("vapi", keys))
                token = one.target.rpartition("/")[2]
                session.add(Integration(org_id=one.id, provider="vapi", token=token, credentials=sealed))
        return opened

    @contextmanager
    def web(self, **more: str) -> Iterator[psutil.Process]:
        """gunicorn as it is documented, until the block ends; ``more`` goes into its environment."""
        with self._running("web", [str(BIN / "gunicorn"), "-c", "gunicorn.conf.py", "wsgi:app"], **more) as process:
            await_answer(f"{self.base_url}/health")
            yield process

    @contextmanager
    def worker(self, **more: str) -> Iterator[psutil.Process]:
        """One worker as it is documented; ``more`` goes into its environment."""
        words = ["worker", "--worker-class", "workers.Worker", "voicedesk"]
        with self._running("worker", [str(BIN / "rq"), *words], **more) as process:
            yield process

    def fill(self, count: int, *, kind: str, of: Sequence[UUID] = ()) -> None:
        """``count`` events that wait, each in a lane of its own; ``of`` these organizations."""
        whose = of or [self.business.id]
        for first in range(0, count, FILL_AT_ONCE):
            events = [
                NewDelivery(
                    org_id=whose[number % len(whose)],
                    integration_id=uuid4(),
                    provider="vapi",
                    type=kind,
                    event_key=f"fill-{number}",
                    lane_key=f"fill:{uuid4()}",
                    payload={
                        "type": kind,
                        "status": "in-progress",
                        "call": {"id": str(uuid4())},
                        "transcript": "hello " * 300,
                    },
                )
                for number in range(first, min(first + FILL_AT_ONCE, count))
            ]
            with self.platform.database.intake() as session:
                insert_webhooks(session, events)

    def finished(self) -> int:
        """How many events are finished."""
        return int(self.ground.ask(PRODUCT, "SELECT count(*) FROM webhook_delivery_log WHERE finished_at IS NOT NULL"))

    @contextmanager
    def _running(self, name: str, words: list[str], **more: str) -> Iterator[psutil.Process]:
        environment = {
            **os.environ,
            **environment_of(self.settings),
            "PORT": str(self.port),
            "RQ_REDIS_URL": self.ground.valkey.url,
            **more,
        }
        child = start_child(words, log_path=self.ground.folder / f"{name}.log", env=environment, cwd=ROOT)
        try:
            yield psutil.Process(child.pid)
        finally:
            stop_child(child, with_signal=signal.SIGTERM, seconds=STOP_SECONDS)

    def _run_flask(self, *words: str) -> None:
        command = [sys.executable, "-m", "flask", "--app", "wsgi", *words]
        environment = {**os.environ, **environment_of(self.settings)}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=120)


def await_answer(url: str) -> None:
    """Until it answers. Raises RuntimeError when it does not."""
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        try:
            if requests.get(url, timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.1)
    raise RuntimeError(f"{url} does not answer")
