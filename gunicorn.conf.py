"""How gunicorn serves the web process: ``gunicorn -c gunicorn.conf.py wsgi:app``.

Owns addresses, processes, threads, time limits, what begins and ends with a worker process, and how one
gunicorn takes over from another. An endpoint's token is as good as a password and a query string may carry
a phone number, so gunicorn's own lines have neither, and no address of whoever asked.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from types import FrameType
from typing import Any

from gunicorn.glogging import Logger

PRIVATE_METRICS = None
SERVED = __name__ == "__config__"  # so gunicorn names it; `flask readiness` only reads it, and must change nothing
if SERVED and not (os.environ.get("METRICS_DIR") or os.environ.get("METRICS_DIR_FILE")):
    # Its own processes must count together at least. Named before anything counts: that is when it is looked for.
    PRIVATE_METRICS = os.environ["METRICS_DIR"] = tempfile.mkdtemp(prefix="voicedesk-metrics-")

from app.config import load_settings
from app.database import Database
from app.errors import ConfigurationError, DatabaseUnavailable
from app.http.answering_worker import AnsweringWorker
from app.interpreter import settle
from app.observability import counting, metrics
from app.observability.errors import watch_process
from app.observability.logging import configure_logging, library_formatter
from app.services.departure import EXIT_CODE, Departure

LEAVE_SECONDS = 23.0  # after SIGTERM, whatever still runs: before gunicorn's own SIGKILL, which gives nothing back
SAME_WISH_SECONDS = 1.0  # a second signal sooner than this is the first one's echo
FIRST_LISTEN_FD, BEYOND_FDS = 3, 64  # where systemd's sockets begin, and a number they do not reach

# gunicorn would say that it is ready before a single process of it is: told by the last of them instead.
NOTIFY_SOCKET = os.environ.pop("NOTIFY_SOCKET", None) if SERVED else None
# The gunicorn that this one was started by (SIGUSR2) to take over from.
BEFORE = os.getppid() if SERVED and os.environ.get("GUNICORN_PID") == str(os.getppid()) else None
BEGUN = multiprocessing.Value("i", 0)


def _number(name: str, default: int, least: int, most: int) -> int:
    """A whole number from the environment; a wrong one ends the start with one readable line."""
    value = os.environ.get(name) or str(default)
    if not value.isdecimal() or not least <= int(value) <= most:
        sys.stderr.write(f"Voicedesk does not start: {name} must be a number from {least} to {most}\n")
        raise SystemExit(78)  # EX_CONFIG
    return int(value)


def hide(uri: str) -> str:
    """A request's path without endpoint token and query string."""
    return re.sub(r"(/webhooks/[^/?]+/)[^/?]+", r"\1***", uri).partition("?")[0]


def say_fault(line: str) -> str:
    """What gunicorn says of something that is no request, without who sent it and without its words."""
    return re.sub(r"(?s)^(Invalid request) from ip=\S*: ([^'\"(/:]*).*", r"\1: \2", line).rstrip()


class DiscreetLogger(Logger):
    """gunicorn's logger, which would otherwise write whole request lines; in the form of all other lines."""

    def setup(self, cfg: Any) -> None:
        """Write where gunicorn was told to, as the application writes."""
        super().setup(cfg)
        with contextlib.suppress(ConfigurationError):  # told, and the start ended, in on_starting
            configure_logging(load_settings())
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(library_formatter())

    def atoms(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The fields of an access line, with the path made harmless."""
        fields: dict[str, Any] = super().atoms(*args, **kwargs)
        fields["U"] = hide(fields["U"] or "")
        return fields

    def warning(self, message: str, *args: Any, **kwargs: Any) -> None:
        """A request that cannot be read: gunicorn repeats what it stumbled over, and the address."""
        super().warning(say_fault(message), *args, **kwargs)

    def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        """An error of a request: gunicorn gives its URI as an argument."""
        super().exception(message, *(hide(arg) if isinstance(arg, str) else arg for arg in args), **kwargs)


bind = f"{os.environ.get('BIND') or '127.0.0.1'}:{_number('PORT', 8000, 1, 65535)}"

worker_class = AnsweringWorker
workers = _number("WEB_CONCURRENCY", 2, 1, 64)
threads = _number("WEB_THREADS", 16, 1, 256)

timeout = 30  # longer than Twilio waits (15 s): an answer later than that helps nobody
graceful_timeout = 25  # longer than Vapi waits for a tool (20 s): a deploy cuts no caller off
keepalive = 75  # longer than a balancer's own, so that it is the balancer who closes
max_requests = 0  # a process that replaces itself under load loses more than a leak costs
preload_app = False  # each process has its own connections and threads; nothing to share across a fork

logger_class = DiscreetLogger
# The application logs one line an event; `--access-logfile -` adds gunicorn's, and gives every webhook to a thread.
accesslog = None
access_log_format = "%(m)s %(U)s %(s)s %(B)s bytes %(M)s ms"
control_socket_disable = True  # its default place is shared by all gunicorns of one user


def on_starting(_server: Any) -> None:
    """End the whole start when a setting is wrong or the database role sees too much; gunicorn itself
    would start a failing worker again for ever."""
    counting.sweep_private()
    try:
        settings = load_settings()
        database = Database(settings)
        database.verify_role()
        database.dispose()
    except ConfigurationError as error:
        sys.stderr.write(f"Voicedesk does not start: {error}\n")
        raise SystemExit(78) from None  # EX_CONFIG
    except DatabaseUnavailable:
        sys.stderr.write("The database is away; its role is checked with the first connection.\n")


def pre_exec(server: Any) -> None:
    """Told to let another take over (SIGUSR2): gunicorn moved systemd's sockets, and looks for them where they were."""
    if server.systemd:
        copies = [fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD_CLOEXEC, BEYOND_FDS) for listener in server.LISTENERS]
        for listener in server.LISTENERS:
            listener.set_inheritable(False)
        for place, copy in enumerate(copies):
            os.dup2(copy, FIRST_LISTEN_FD + place)


def when_ready(server: Any) -> None:
    """Let a second SIGTERM end the whole at once, as gunicorn by itself does only for SIGINT and SIGQUIT."""
    told: list[float] = []

    def stop(number: int, frame: FrameType | None) -> None:
        again = bool(told) and time.monotonic() - told[0] >= SAME_WISH_SECONDS
        told.append(time.monotonic())
        server.signal(signal.SIGQUIT if again else number, frame)

    signal.signal(signal.SIGTERM, stop)


def post_worker_init(worker: Any) -> None:
    """Check the database role, begin the sync fallback and the sweep, and let SIGTERM reach them at once."""
    watch_process("web")
    platform = worker.app.callable.extensions["platform"]
    platform.start_web()
    settle()
    worker.departure = Departure(
        platform,
        [platform.caretaker.drain],
        grace_seconds=LEAVE_SECONDS,
        retire=lambda: os.kill(os.getpid(), signal.SIGTERM),
    )
    worker.departure.expect()
    finish_requests = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        worker.departure.soon()
        platform.caretaker.claim_no_more()
        finish_requests(number, frame)  # type: ignore[misc, operator]

    signal.signal(signal.SIGTERM, stop)
    signal.siginterrupt(signal.SIGTERM, False)
    with BEGUN.get_lock():
        BEGUN.value += 1
        if BEGUN.value == workers:
            take_over(worker.ppid)


def take_over(master: int) -> None:
    """All processes are here: tell systemd whom to watch, and whoever served before to leave."""
    if NOTIFY_SOCKET:
        address = "\0" + NOTIFY_SOCKET[1:] if NOTIFY_SOCKET.startswith("@") else NOTIFY_SOCKET
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notes:
            notes.settimeout(1.0)
            notes.connect(address)
            notes.sendall(f"READY=1\nMAINPID={master}\nSTATUS=Serving".encode())
    if BEFORE is not None:
        os.kill(BEFORE, signal.SIGTERM)


def worker_int(worker: Any) -> None:
    """SIGINT or SIGQUIT: give back what is held, and end within a second."""
    worker.departure.now()


def worker_exit(_server: Any, worker: Any) -> None:
    """Claim nothing more, and finish what runs; what cannot be finished has been given back."""
    departure = getattr(worker, "departure", None)
    if departure is not None and departure.stuck:
        os._exit(EXIT_CODE)
    application = getattr(worker.app, "callable", None)
    if application is not None:
        application.extensions["platform"].close()


def on_exit(_server: Any) -> None:
    """Remove what no other process counts into: a gunicorn that takes over (SIGUSR2) counts in the same folder."""
    if PRIVATE_METRICS and metrics.shared and metrics.shared.deserted():
        shutil.rmtree(PRIVATE_METRICS, ignore_errors=True)
