"""The start: what is wrong ends it at once with one readable line, and is not tried again for ever."""

from __future__ import annotations

import os
import subprocess

from app.config import environment_of
from sandbox.ports import free_port
from tests.conftest import make_settings
from tests.e2e.house import BIN, ROOT


def start_web(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "gunicorn"), "-c", "gunicorn.conf.py", "wsgi:app"]
    environment = {**environment, "PORT": str(free_port())}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_wrong_settings_stop_the_start_with_every_name_and_no_value(database_urls):
    environment = {**os.environ, **environment_of(make_settings(database_urls))}
    environment |= {"CREDENTIALS_KEYS": "not-a-key", "WORKER_THREADS": "many", "REDIS_URL": "http://redis"}
    done = start_web(environment)
    assert done.returncode == 78
    for name in ("CREDENTIALS_KEYS", "WORKER_THREADS", "REDIS_URL"):
        assert f"{name}: " in done.stderr
    assert "not-a-key" not in done.stderr


def test_a_login_role_that_could_bypass_row_level_security_stops_the_start(postgres, database_urls):
    bypassing = make_settings(database_urls, database_url=postgres.superuser_url(database_urls.name))
    done = start_web({**os.environ, **environment_of(bypassing)})
    assert done.returncode == 78
    assert "could bypass row-level security" in done.stderr
