"""Deliveries that kill their process, drains that are told to stop, and leases in between."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from app.config import environment_of
from app.errors import DatabaseUnavailable
from app.models.inbox import NewDelivery, insert_webhooks
from app.observability.counting import Folder
from app.services import handlers, isolation
from app.services.delivery import LeaseLost, Work
from app.services.drain import Drain
from app.services.platform import Platform
from tests.conftest import run_as_superuser
from tests.eventually import eventually

ROOT = isolation.ROOT
# A program that is the product with one more handler, which kills whoever runs it.
DEADLY = """
import os, signal, sys, time
from app.services import handlers
def probe(work):
    if work.delivery.event_key == "deadly":
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("PROBE_SECONDS"):
        time.sleep(float(os.environ["PROBE_SECONDS"]))
handlers._HANDLERS[("test", "probe")] = probe
"""
DRAIN = "from app.config import load_settings\nfrom app.services.platform import Platform\n" + (
    "from app.services.drain import Drain\nDrain(Platform(load_settings()), threads=4).run()\n"
)


@pytest.fixture
def handle(monkeypatch):
    def register(function):
        monkeypatch.setitem(handlers._HANDLERS, ("test", "probe"), function)

    return register


def put(platform: Platform, org_id, *keys: str, lane: str | None = None) -> None:
    events = [
        NewDelivery(
            org_id=org_id,
            integration_id=uuid4(),
            provider="test",
            type="probe",
            event_key=key,
            lane_key=lane or f"lane-{key}",
            payload={},
        )
        for key in keys
    ]
    with platform.database.intake() as session:
        insert_webhooks(session, events)


def rows(platform: Platform, what: str) -> list[tuple]:
    with platform.database.transaction(system=True) as session:
        return [tuple(row) for row in session.execute(text(what)).all()]


def test_what_kills_its_process_is_run_alone_and_buried_after_five_and_its_neighbours_are_not_charged(
    platform, people, tmp_path
):
    put(platform, people.salon.id, "deadly", "behind", lane="one lane")
    put(platform, people.salon.id, "beside")
    (tmp_path / "sitecustomize.py").write_text("")
    (tmp_path / "deadly.py").write_text(DEADLY)
    # Flask's command line, and so the process of its own, takes the program with the deadly handler too.
    (tmp_path / "wsgi.py").write_text(DEADLY + "from app import create_app\napp = create_app()\n")
    (tmp_path / "drain.py").write_text(
        DEADLY
        + f"from pathlib import Path\nfrom app.services import isolation\nisolation.ROOT = Path({str(tmp_path)!r})\n"
        + DRAIN
    )
    counts = str(tmp_path / "counts")
    settings = platform.settings.model_copy(update={"lease_seconds": 1.0, "metrics_dir": counts})
    environment = environment_of(settings) | {"PYTHONPATH": str(ROOT), "PROBE_SECONDS": "0.3"}

    def drain() -> int:
        command = [sys.executable, str(tmp_path / "drain.py")]
        return subprocess.run(command, env=environment, cwd=ROOT, timeout=60, capture_output=True).returncode

    assert drain() == -signal.SIGKILL

    def finished() -> bool:
        assert drain() == 0, "only the first process may die"
        return rows(platform, "SELECT count(*) FROM lanes") == [(0,)]

    eventually(finished, seconds=60)
    found = rows(platform, "SELECT event_key, status, error_code FROM webhook_delivery_log ORDER BY event_key")
    assert found == [
        ("behind", "processed", None),
        ("beside", "processed", None),
        ("deadly", "dead", "crashed"),
    ]
    tries = Counter(
        rows(
            platform,
            "SELECT d.event_key, a.outcome FROM delivery_attempts a"
            " JOIN webhook_delivery_log d ON d.id = a.delivery_id",
        )
    )
    assert tries["deadly", "lost"] == 5
    assert tries["behind", "processed"] == tries["beside", "processed"] == 1
    counted: Counter[str] = Counter()
    for metric in Folder(Path(counts)).read():
        for sample in metric.samples:
            if sample.name == "voicedesk_delivery_attempts_total":
                counted[sample.labels["outcome"]] += int(sample.value)
    assert +counted == Counter(outcome for _, outcome in tries.elements())


def test_a_process_of_its_own_that_cannot_begin_is_not_started_again_and_again(platform, people, handle, monkeypatch):
    handle(lambda _: None)
    put(platform, people.salon.id, "a")
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE webhook_delivery_log SET running_since = now(), status = 'processing'"))
    starts = []
    monkeypatch.setattr(isolation, "_nursery", lambda _: starts.append(1) or broken())
    Drain(platform, threads=1).run(seconds=1)
    assert len(starts) == 2, "once more, because it may just have ended for want of work"
    assert rows(platform, "SELECT due_at > now() FROM lanes") == [(True,)]
    assert rows(platform, "SELECT crashes, attempts FROM webhook_delivery_log") == [(0, 0)], "it says nothing of it"


def broken() -> None:
    raise OSError("no such program")


def test_what_kills_its_process_while_it_is_only_read_is_buried_after_five_too(platform, people, tmp_path, monkeypatch):
    put(platform, people.salon.id, "unreadable")
    make_suspects(platform)
    (tmp_path / "wsgi.py").write_text(
        "import os, signal\nfrom app.services import isolated_attempt\n"
        "isolated_attempt.read_held = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from app import create_app\napp = create_app()\n"
    )
    monkeypatch.setattr(isolation, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    soon = Platform(platform.settings.model_copy(update={"retry_base_seconds": 0.1}))
    drain = Drain(soon, threads=1)
    eventually(lambda: drain.run() == 0 and rows(platform, "SELECT count(*) FROM lanes") == [(0,)], seconds=40)
    assert rows(platform, "SELECT status, error_code FROM webhook_delivery_log") == [("dead", "crashed")]
    assert rows(platform, "SELECT DISTINCT outcome FROM delivery_attempts") == [("lost",)]
    soon.close()


def test_a_dozen_that_a_killed_worker_had_begun_share_one_start_and_none_of_them_is_charged_for_another(
    platform, people, tmp_path, monkeypatch
):
    """One of them kills its fork: the others go on in theirs, and so does the process that forks."""
    put(platform, people.salon.id, "deadly", *[f"e{number}" for number in range(11)])
    make_suspects(platform)
    (tmp_path / "wsgi.py").write_text(DEADLY + "from app import create_app\napp = create_app()\n")
    monkeypatch.setattr(isolation, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    soon = Platform(platform.settings.model_copy(update={"retry_base_seconds": 0.1}))
    drain = Drain(soon, threads=16)
    nurseries: set[int] = set()

    def finished() -> bool:
        drain.run()
        nurseries.update(one._process.pid for one in isolation._nurseries)
        return rows(platform, "SELECT count(*) FROM lanes") == [(0,)]

    eventually(finished, seconds=40)
    found = rows(platform, "SELECT status, crashes, count(*) FROM webhook_delivery_log GROUP BY 1, 2 ORDER BY 3")
    assert found == [("dead", 4, 1), ("processed", 1, 11)]
    assert len(nurseries) == 1
    soon.close()


def make_suspects(platform: Platform) -> None:
    """As a process leaves it that was killed in the middle of each."""
    with platform.database.transaction(system=True) as session:
        session.execute(
            text("UPDATE webhook_delivery_log SET running_since = now(), status = 'processing', attempts = 1")
        )


def test_a_lease_that_ended_unnoticed_costs_neither_a_crash_nor_a_process_of_its_own(platform, people, handle):
    lost = []

    def handler(work: Work) -> None:
        if not lost:
            lost.append(1)
            raise LeaseLost

    handle(handler)
    put(platform, people.salon.id, "a")
    eventually(lambda: Drain(platform, threads=1).run() == 0, seconds=20)
    assert rows(platform, "SELECT status, attempts, crashes FROM webhook_delivery_log") == [("processed", 1, 0)]


def test_a_drain_told_to_stop_renews_the_lease_of_what_it_still_runs(platform, people, handle):
    short = Platform(platform.settings.model_copy(update={"lease_seconds": 1.0}))
    began, told = threading.Event(), threading.Event()
    calls = []

    def handler(work: Work) -> None:
        calls.append(1)
        began.set()
        time.sleep(2.5)
        work.confirm()

    handle(handler)
    put(platform, people.salon.id, "a")
    drain = Drain(short, threads=2)
    worker = threading.Thread(target=lambda: drain.run(keep_going=lambda: not told.is_set()))
    worker.start()
    assert began.wait(5)
    told.set()
    worker.join(timeout=10)
    assert rows(platform, "SELECT status, attempts FROM webhook_delivery_log") == [("processed", 1)]
    assert rows(platform, "SELECT count(*) FROM lanes") == [(0,)]
    assert len(calls) == 1
    short.close()


def test_one_organization_never_has_all_threads_even_when_they_free_up_one_by_one(platform, people, handle):
    running, most, lock = [0], [0], threading.Lock()

    def handler(work: Work) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.05 + 0.02 * (work.delivery.id % 5))
        with lock:
            running[0] -= 1

    handle(handler)
    put(platform, people.salon.id, *[f"e{number}" for number in range(80)])
    Drain(platform, threads=8).run()
    assert most[0] == 6


def test_what_a_handler_came_to_is_recorded_although_the_database_was_away_when_it_ended(
    platform, people, handle, postgres
):
    """Its connections are cut and new ones refused for a second, as while it restarts."""
    name = make_url(platform.settings.database_url).database

    def handler(work: Work) -> None:
        run_as_superuser(postgres, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        run_as_superuser(postgres, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        allow = f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"
        threading.Timer(1.0, run_as_superuser, (postgres, allow)).start()

    handle(handler)
    put(platform, people.salon.id, "a")
    with contextlib.suppress(DatabaseUnavailable):
        Drain(platform, threads=1).run()
    eventually(lambda: count_open_attempts(platform) == 0)
    assert rows(platform, "SELECT status, attempts, crashes FROM webhook_delivery_log") == [("processed", 1, 0)]


def count_open_attempts(platform: Platform) -> int:
    return rows(platform, "SELECT count(*) FROM delivery_attempts WHERE ended_at IS NULL")[0][0]


def test_a_lease_far_ahead_of_the_clock_is_due_again_with_the_next_sweep(platform, people, handle):
    handle(lambda _: None)
    put(platform, people.salon.id, "a")
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE lanes SET token = 1, due_at = now() + interval '1 hour'"))
    platform.caretaker.sweep()
    assert rows(platform, "SELECT status FROM webhook_delivery_log") == [("processed",)]
