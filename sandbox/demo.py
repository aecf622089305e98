"""`make demo`: everything on one machine, one whole call, a table of it, and then it serves.

Owns the order in which things start and stop. Exit code 0 only when every row of the table is as it
should be (ONCE=1), or when it was ended by a person.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import requests

from sandbox.installation import ASSISTANT, CUSTOMER, NUMBER, Installation
from sandbox.player import Player, Row
from sandbox.ports import LOOPBACK, port_taken
from sandbox.postgres import EmbeddedPostgres, create_roles_and_database
from sandbox.processes import Command, Supervisor
from sandbox.standins import RemoteWorld
from sandbox.standins.world import ControlRefused
from sandbox.valkey import EmbeddedValkey

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
BIN = Path(PYTHON).parent
READY_SECONDS = 60.0
WIDTHS = (26, 56, 9)


class Interrupted(BaseException):
    """Somebody wants it to end; like KeyboardInterrupt not an Exception, so that nothing takes it for a failure."""


def main() -> int:
    """Run the demo; returns the exit code: 2 when it cannot begin, 1 when something is not as it should be."""
    os.umask(0o077)  # logs and data are of nobody else's business
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = LOOPBACK  # everything here is on this machine
    wanted = os.environ.get("PORT") or "8000"
    if not wanted.isdecimal() or not 0 < int(wanted) < 65536:
        return _refuse(f"PORT must be a number from 1 to 65535, and is {wanted!r}")
    port = int(wanted)
    holder = port_taken(port)
    if holder:
        return _refuse(f"port {port} is taken by {holder}; choose another: make demo PORT={port + 1}")
    _on_signals(_interrupt)
    demo = Demo(Installation(ROOT, Path(os.environ.get("DEMO_FOLDER") or ROOT / ".demo").absolute(), port))
    try:
        demo.start()
        faults = demo.play()
        if os.environ.get("ONCE"):
            return 1 if faults else 0
        print(f"\nready at {demo.installation.base_url}  (Ctrl-C ends it)", flush=True)
        signal.pause()
    except Interrupted:
        print("\nstopping", flush=True)
        return 1 if os.environ.get("ONCE") else 0
    except (RuntimeError, OSError, ControlRefused, subprocess.SubprocessError) as error:
        print(f"the demo does not start: {error}\nlogs are in {demo.installation.folder}", file=sys.stderr)
        return 1
    finally:
        _on_signals(signal.SIG_IGN)  # one Ctrl-C is enough; a second must not leave half behind
        demo.stop()
    return 0


class Demo:
    """The servers, the stand-ins and the product's own processes."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self._supervisor: Supervisor | None = None
        self.environment: dict[str, str] = {}
        self._known: dict[str, Any] = {}
        self._world: RemoteWorld | None = None

    def start(self) -> None:
        """Servers, migrations, stand-ins, the organization, and the three processes of the product."""
        here = self.installation
        here.folder.mkdir(mode=0o700, exist_ok=True)
        supervisor = self._supervisor = Supervisor(here.folder, tell=_say)  # and nobody else's from here on
        known = self._known = here.prepare()
        _say("starting PostgreSQL, Valkey and the stand-ins")
        postgres = EmbeddedPostgres(here.folder / "postgres", port=known["postgres_port"])
        supervisor.start("postgres", postgres)
        valkey = EmbeddedValkey(
            here.folder / "valkey", port=known["valkey_port"], password=str(known["valkey_password"])
        )
        supervisor.start("valkey", valkey)
        owner_url, app_url = create_roles_and_database(postgres, "voicedesk")
        settings = here.settings(known, owner_url=owner_url, app_url=app_url, redis_url=valkey.url)
        self.environment = here.environment(settings)
        state = str(here.folder / "standins.json")
        self._run("standins", PYTHON, "-m", "sandbox.standins", "--port", str(known["standins_port"]), "--state", state)
        _say("migrating")
        here.flask(self.environment, "db", "upgrade")
        self._world = RemoteWorld(f"http://{LOOPBACK}:{known['standins_port']}")
        _await_answer(self._world.url, "the stand-ins", here.folder / "standins.log")
        _say("connecting the demo organization")
        here.connect(known, self.environment, self._world)
        _say("starting web, worker and scheduler")
        self._run("web", BIN / "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app")
        self._run("worker", BIN / "rq", "worker", "--worker-class", "workers.Worker", "voicedesk")
        self._run("scheduler", PYTHON, "-m", "workers.scheduler")
        _await_answer(f"{here.base_url}/health/ready", "the web process", here.folder / "web.log", status=200)

    def play(self) -> int:
        """Play the call, print the table; returns how many rows are not as they should be."""
        assert self._world is not None
        _say("playing one call\n")
        known = self._known
        player = Player(
            webhook_url=f"{self.installation.base_url}/webhooks/vapi/{known['vapi']['token']}",
            secret=known["vapi"]["webhook_secret"],
            org_id=known["org_id"],
            calendar_id=known["google-calendar"]["calendar_id"],
            number=NUMBER,
            customer=CUSTOMER,
            assistant_id=ASSISTANT,
            ask=lambda *words: self.installation.flask(self.environment, *words),
            world=self._world,
        )
        rows = player.play()
        print(render(rows))
        print(_where_to_look(self.installation), flush=True)
        return sum(row.fault is not None for row in rows)

    def stop(self) -> None:
        """The product first, then what it stands on."""
        if self._supervisor is not None:
            self._supervisor.stop()

    def _run(self, name: str, *words: str | Path) -> None:
        here = self.installation
        log_path = here.folder / f"{name}.log"
        command = Command([str(word) for word in words], log_path=log_path, env=self.environment, cwd=here.root)
        assert self._supervisor is not None
        self._supervisor.start(name, command)


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
    folder = os.path.relpath(installation.folder, installation.root)
    return textwrap.dedent(
        f"""
        where to look
          health      {installation.base_url}/health/ready
          metrics     {installation.base_url}/metrics
          logs        {folder}/*.log
          by hand     set -a; . {folder}/env; set +a
                      .venv/bin/flask --app wsgi deliveries list
                      .venv/bin/flask --app wsgi appointments list
                      .venv/bin/flask --app wsgi messages list"""
    )


def _await_answer(url: str, what: str, log_path: Path, *, status: int | None = None) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            response = requests.get(url, timeout=2)
            if status is None or response.status_code == status:
                return
        time.sleep(0.1)
    last_lines = "\n".join(log_path.read_text(errors="replace").splitlines()[-5:])
    raise RuntimeError(f"{what} did not answer within {READY_SECONDS:.0f} s; its last lines:\n{last_lines}")


def _say(what: str) -> None:
    print(f"· {what}", flush=True)


def _refuse(why: str) -> int:
    print(why, file=sys.stderr)
    return 2


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _on_signals(signal.SIG_IGN)  # what is raised here must not be raised again on its way out
    raise Interrupted


def _on_signals(action: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, action)


if __name__ == "__main__":
    sys.exit(main())
