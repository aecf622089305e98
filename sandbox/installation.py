"""The demo's own installation: its folder, its settings file, its organization.

Owns `.demo/`: made once, reused by the next demo with the same passwords, ports and ids. Everything
secret in it is readable for its owner alone.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from sandbox.ports import LOOPBACK, free_port, port_taken
from sandbox.standins import RemoteWorld

COMMAND_SECONDS = 120
NUMBER = "+4930555500001"
CUSTOMER = "+4915155500002"
ASSISTANT = "demo-receptionist"
NUMBER_AT_VAPI = "demo-number"
PERSON = "owner@example.com"  # who consents at the stand-in of Google
TRANSFER = "+4930555500009"
OAUTH_CLIENT = "demo-house.apps.googleusercontent.com"
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "TERM")
HOURS = {day: [["08:00", "18:00"]] for day in ("mon", "tue", "wed", "thu", "fri", "sat")}


@dataclass(frozen=True)
class Installation:
    """Where the demo lives and how its parts reach each other."""

    root: Path
    folder: Path
    port: int

    @property
    def base_url(self) -> str:
        """Where the web process answers."""
        return f"http://{LOOPBACK}:{self.port}"

    def prepare(self) -> dict[str, Any]:
        """The folder, and the secrets and ports in ``demo.json``: kept ones, and new ones where a port is taken."""
        known = self.remembered()
        known.setdefault("valkey_password", secrets.token_hex(16))
        known.setdefault("credentials_key", Fernet.generate_key().decode())
        known.setdefault("vapi_key", secrets.token_hex(16))
        known.setdefault("oauth_client_secret", secrets.token_hex(16))
        for name in ("postgres_port", "valkey_port", "standins_port"):
            if name not in known or port_taken(known[name]):
                known[name] = free_port()
        self.remember(known)
        return known

    def remembered(self) -> dict[str, Any]:
        """What earlier demos wrote down."""
        try:
            return dict(json.loads((self.folder / "demo.json").read_text()))
        except FileNotFoundError:
            return {}

    def remember(self, known: Mapping[str, Any]) -> None:
        """Write it down, for the owner's eyes only."""
        _write_private(self.folder / "demo.json", json.dumps(known, indent=1))

    def settings(self, known: Mapping[str, Any], *, owner_url: str, app_url: str, redis_url: str) -> dict[str, str]:
        """The product's settings, written to ``env`` for commands in another terminal."""
        world = f"http://{LOOPBACK}:{known['standins_port']}"
        settings = {
            "DATABASE_URL": app_url,
            "MIGRATION_DATABASE_URL": owner_url,
            "REDIS_URL": redis_url,
            "RQ_REDIS_URL": redis_url,  # so that `rq` needs no --url, which every user of the machine could read
            "PUBLIC_BASE_URL": self.base_url,
            "CREDENTIALS_KEYS": str(known["credentials_key"]),
            "VAPI_PRIVATE_KEY": str(known["vapi_key"]),
            "VAPI_API_BASE_URL": f"{world}/vapi",
            "TWILIO_API_BASE_URL": f"{world}/twilio",
            "GOOGLE_CLIENT_ID": OAUTH_CLIENT,
            "GOOGLE_CLIENT_SECRET": str(known["oauth_client_secret"]),
            "GOOGLE_CALENDAR_API_BASE_URL": f"{world}/google/calendar/v3/",
            "SLACK_API_BASE_URL": f"{world}/slack/api/",
            "METRICS_DIR": str(self.folder / "metrics"),
            "SPOOL_DIR": str(self.folder / "spool"),
            "NO_PROXY": LOOPBACK,
            "no_proxy": LOOPBACK,
        }
        lines = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
        head = "# Settings of the demo. In another terminal: set -a; . .demo/env; set +a"
        _write_private(self.folder / "env", "\n".join([head, *lines, ""]))
        return settings

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """The environment of the demo's processes: the same on every machine, whatever is exported there."""
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return {**inherited, **settings, "PORT": str(self.port), "PYTHONUNBUFFERED": "1"}

    def flask(self, environment: Mapping[str, str], *words: str) -> Any:
        """One of the product's own commands; its JSON, if it prints any. Raises with what it said."""
        command = [sys.executable, "-m", "flask", "--app", "wsgi", *words]
        done = subprocess.run(
            command,
            cwd=self.root,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is this process's business
        )
        if done.returncode:
            raise RuntimeError(f"flask {words[0]} {words[1]} failed:\n{done.stderr.strip()[-2000:]}")
        return json.loads(done.stdout) if "--json" in words else None

    def connect(self, known: dict[str, Any], environment: Mapping[str, str], world: RemoteWorld) -> None:
        """The demo organization with its three integrations, made with the product's own commands, once."""
        if "vapi" not in known:
            self._found(known, environment)
        account = known["twilio"]
        world.twilio_account(account["account_sid"], account["auth_token"], numbers=[NUMBER, f"whatsapp:{NUMBER}"])
        calendar = known["google-calendar"]
        world.calendar(calendar["calendar_id"])
        world.google_client(calendar["client_id"], calendar["client_secret"], calendar["refresh_token"])
        callback = f"{self.base_url}/connect/google/callback"
        world.google_oauth_client(OAUTH_CLIENT, str(known["oauth_client_secret"]), [callback])
        world.calendar(PERSON)
        key = str(known["vapi_key"])
        world.vapi_key(key)
        world.assistant(key, "Demo receptionist", ASSISTANT)
        world.phone_number(key, NUMBER, NUMBER_AT_VAPI)

    def _found(self, known: dict[str, Any], environment: Mapping[str, str]) -> None:
        org = self.flask(environment, "org", "create", "Demo Salon", "--timezone", "Europe/Berlin", "--json")
        hours = self.folder / "hours.json"
        hours.write_text(json.dumps(HOURS, indent=1))
        changes = {
            "--number": NUMBER,
            "--transfer": TRANSFER,
            "--assistant": ASSISTANT,
            "--hours": str(hours),
            "--slot": "30",
        }
        words = [word for pair in changes.items() for word in pair]
        self.flask(environment, "org", "set", org["id"], *words, "--json")
        given = {
            "twilio": {
                "account_sid": "AC" + secrets.token_hex(16),
                "auth_token": secrets.token_hex(16),
                "from_number": NUMBER,
            },
            "google-calendar": {
                "channel_token": secrets.token_hex(16),
                "calendar_id": "demo-salon@group.calendar.google.com",
                "client_id": "demo-client.apps.googleusercontent.com",
                "client_secret": secrets.token_hex(16),
                "refresh_token": secrets.token_hex(16),
            },
            "vapi": {"webhook_secret": secrets.token_hex(16)},
        }
        known["org_id"] = org["id"]
        for provider, values in given.items():
            pairs = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
            added = self.flask(environment, "integration", "add", org["id"], provider, *pairs, "--json")
            known[provider] = {**values, "token": added["token"]}
        self.remember(known)


def _write_private(path: Path, content: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
