"""`make demo`: everything on one machine, one whole call, a table of it, and then it serves.

Owns the order in which things start and stop. Exit code 0 only when every row of the table is as it
should be (ONCE=1), or when it was ended by a person.
"""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from pathlib import Path
from types import FrameType

import requests

from sandbox.installation import CUSTOMER, NUMBER, Installation
from sandbox.player import Player, Row
from sandbox.ports import LOOPBACK, port_taken
from sandbox.postgres import EmbeddedPostgres, create_roles_and_database
from sandbox.processes import Supervisor
from sandbox.standins import RemoteWorld
from sandbox.valkey import EmbeddedValkey

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 60.0
WIDTHS = (26, 56, 9)


class Interrupted(Exception):
    """Somebody wants it to end."""


def main() -> int:
    """Run the demo; returns the exit code."""
    port = int(os.environ.get("PORT") or 8000)
    holder = port_taken(port)
    if holder:
        print(f"port {port} is taken by {holder}; choose another: make demo PORT={port + 1}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    demo = Demo(Installation(ROOT, ROOT / ".demo", port))
    try:
        demo.start()
        faults = demo.play()
        if os.environ.get("ONCE"):
            return 1 if faults else 0
        print(f"\nready at {demo.installation.base_url}  (Ctrl-C ends it)", flush=True)
        signal.pause()
    except Interrupted:
        print("\nstopping", flush=True)
    except (RuntimeError, OSError) as error:
        print(f"the demo does not start: {error}\nlogs are in {demo.installation.folder}", file=sys.stderr)
        return 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # one Ctrl-C is enough; a second must not leave half behind
        demo.stop()
    return 0


class Demo:
    """The servers, the stand-ins and the product's own processes."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self._postgres: EmbeddedPostgres | None = None
        self._valkey: EmbeddedValkey | None = None
        self._supervisor: Supervisor | None = None
        self._environment: dict[str, str] = {}
        self._known: dict[str, dict[str, str]] = {}

    def start(self) -> None:
        """Servers, migrations, stand-ins, the organization, and the three processes of the product."""
        here = self.installation
        known = self._known = here.prepare()
        _say("starting PostgreSQL and Valkey")
        folder = here.folder
        self._postgres = EmbeddedPostgres(
            folder / "postgres", port=known["postgres_port"], log_path=folder / "postgres.log"
        )
        self._postgres.start()
        self._valkey = EmbeddedValkey(folder / "valkey", port=known["valkey_port"], log_path=folder / "valkey.log")
        self._valkey.start()
        owner_url, app_url = create_roles_and_database(
            self._postgres, "voicedesk", owner_password=known["owner_password"], app_password=known["app_password"]
        )
        settings = here.settings(known, owner_url=owner_url, app_url=app_url, redis_url=self._valkey.url)
        self._environment = here.environment(settings)
        self._supervisor = Supervisor(folder, env=self._environment, cwd=here.root)
        standins = ["--port", str(known["standins_port"]), "--state", str(folder / "standins.json")]
        self._supervisor.start("standins", [sys.executable, "-m", "sandbox.standins", *standins])
        _say("migrating")
        here.flask(self._environment, "db", "upgrade")
        world_url = f"http://{LOOPBACK}:{known['standins_port']}"
        _await_answer(f"{world_url}/", "the stand-ins")
        _say("connecting the demo organization")
        here.connect(known, self._environment, RemoteWorld(world_url))
        _say("starting web, worker and scheduler")
        bin_folder = Path(sys.executable).parent
        self._supervisor.start("web", [str(bin_folder / "gunicorn"), "-c", "gunicorn.conf.py", "wsgi:app"])
        worker = ["worker", "--url", self._valkey.url, "--worker-class", "workers.Worker", "voicedesk"]
        self._supervisor.start("worker", [str(bin_folder / "rq"), *worker])
        self._supervisor.start("scheduler", [sys.executable, "-m", "workers.scheduler"])
        _await_answer(f"{here.base_url}/health/ready", "the web process", status=200)
        self._supervisor.watch_in_background()

    def play(self) -> int:
        """Play the call, print the table; returns how many rows are not as they should be."""
        _say("playing one call\n")
        player = Player(
            self.installation.base_url,
            token=self._known["vapi"]["token"],
            secret=self._known["vapi"]["webhook_secret"],
            number=NUMBER,
            customer=CUSTOMER,
            ask=lambda *words: self.installation.flask(self._environment, *words),
        )
        rows = player.play()
        print(render(rows))
        print(_where_to_look(self.installation))
        return sum(row.fault is not None for row in rows)

    def stop(self) -> None:
        """The product first, then what it stands on."""
        if self._supervisor is not None:
            self._supervisor.stop()
        if self._valkey is not None:
            self._valkey.stop()
        if self._postgres is not None:
            self._postgres.stop()


def render(rows: list[Row]) -> str:
    """The table, 100 columns wide; a long answer goes on below itself."""
    lines = [_line("event", "answer", "time", "")]
    lines.append(_line("-" * WIDTHS[0], "-" * WIDTHS[1], "-" * WIDTHS[2], "--"))
    for row in rows:
        took = "" if row.milliseconds is None else f"{row.milliseconds:,.0f} ms"
        first, *rest = textwrap.wrap(row.answer, WIDTHS[1]) or ["-"]
        lines.append(_line(row.event, first, took, "ok" if row.fault is None else "!!"))
        lines += [_line("", more, "", "") for more in rest]
        if row.fault is not None:
            lines.append(_line("", f"WRONG: {row.fault}", "", ""))
    return "\n".join(lines)


def _line(event: str, answer: str, took: str, verdict: str) -> str:
    return f"{event:<{WIDTHS[0]}}  {answer:<{WIDTHS[1]}}  {took:>{WIDTHS[2]}}  {verdict}".rstrip()


def _where_to_look(installation: Installation) -> str:
    return textwrap.dedent(
        f"""
        where to look
          health    {installation.base_url}/health/ready
          logs      {installation.folder.name}/*.log
          by hand   set -a; . {installation.folder.name}/env; set +a
                    .venv/bin/flask --app wsgi deliveries list
                    .venv/bin/flask --app wsgi messages list"""
    )


def _await_answer(url: str, what: str, *, status: int | None = None) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            response = requests.get(url, timeout=2)
            if status is None or response.status_code == status:
                return
        except requests.RequestException:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{what} did not answer within {READY_SECONDS:.0f} s")


def _say(what: str) -> None:
    print(f"· {what}", flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise Interrupted


if __name__ == "__main__":
    sys.exit(main())
