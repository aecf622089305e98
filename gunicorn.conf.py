"""How gunicorn serves the web process: `gunicorn -c gunicorn.conf.py wsgi:app`.

Owns addresses, numbers of processes and threads, and what begins and ends with a worker process.
"""

from __future__ import annotations

import os
from typing import Any

bind = os.environ.get("BIND") or f"127.0.0.1:{os.environ.get('PORT') or 8000}"
worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY") or 2)
threads = int(os.environ.get("WEB_THREADS") or 16)
timeout = 30  # longer than Twilio waits (15 s): an answer later than that helps nobody
graceful_timeout = 25
keepalive = 30
preload_app = False  # each process has its own connections and threads; nothing to share across a fork
accesslog = None  # the application logs one line an event, without query strings and numbers


def post_worker_init(worker: Any) -> None:
    """Check the database role, and begin the sync fallback and the sweep."""
    platform = worker.app.callable.extensions["platform"]
    platform.start_web()


def worker_exit(_server: Any, worker: Any) -> None:
    """Claim nothing more, and finish what runs."""
    application = getattr(worker.app, "callable", None)
    if application is not None:
        application.extensions["platform"].close()
