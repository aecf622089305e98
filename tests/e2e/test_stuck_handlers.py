"""A handler that never ends: its process finishes the rest, goes and is started again, and it runs alone until dead."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import requests

from tests.e2e.house import BIN, ROOT, House
from tests.eventually import eventually
from tests.people import Business, open_business
from tests.probes import put_probes

# The product with one handler more: it never ends for one delivery.
STUCK = """
import threading, time
from app.services import handlers
def probe(work):
    if work.delivery.event_key == "stuck":
        threading.Event().wait()
    time.sleep(0.3)
handlers._HANDLERS[("test", "probe")] = probe
"""
FOUND = "SELECT event_key, status, error_code, attempts FROM webhook_delivery_log WHERE provider = 'test' ORDER BY 1"
RAN = (
    "SELECT count(*) FROM delivery_attempts a JOIN webhook_delivery_log d ON d.id = a.delivery_id"
    " WHERE d.event_key = 'stuck'"
)


@pytest.fixture
def build(tmp_path, world) -> Iterator:
    made: list[House] = []

    def make(**options) -> tuple[House, Business]:
        (tmp_path / "probing.py").write_text(STUCK)
        # Flask's command line, and so the process of its own, takes the program with that handler too.
        (tmp_path / "wsgi.py").write_text(STUCK + "from app import create_app\napp = create_app()\n")
        (tmp_path / "stuck.py").write_text("import probing\nfrom wsgi import app\nfrom workers import Worker\n")
        (tmp_path / "sitecustomize.py").write_text(
            f"import pathlib\nfrom app.services import isolation\nisolation.ROOT = pathlib.Path({str(tmp_path)!r})\n"
        )
        # Within the limit a process of its own has to start, too: on a busy machine that took more than three seconds.
        house = House(tmp_path, world, handler_limit_seconds=8, lease_seconds=60, retry_base_seconds=0.1, **options)
        made.append(house)
        house.environment |= {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "WEB_CONCURRENCY": "1"}
        return house, open_business(house.platform, world, "Salon", "+4930111110001")

    yield make
    for house in made:
        house.close()


@pytest.mark.timeout(120)
def test_a_worker_whose_handler_is_past_its_bound_is_started_again_and_that_delivery_runs_alone(build):
    house, salon = build()
    words = ["worker", "--url", house.valkey.url, "--worker-class", "stuck.Worker", "voicedesk"]
    house.start("worker", [str(BIN / "rq"), *words])
    put_probes(house.platform, salon.id, "stuck", *"abcd")
    eventually(lambda: '"isolated.overdue"' in house.log("worker"), seconds=80)  # killed at its bound
    assert house.query(RAN)[0][0] >= 1
    assert house.query(FOUND)[:4] == [(name, "processed", None, 1) for name in "abcd"]
    assert house.log("worker").count('"departure.stuck"') == 1, "alone it costs no process but its own"
    put_probes(house.platform, salon.id, "after")
    house.platform.bell.ring()
    eventually(lambda: ("after", "processed", None, 1) in house.query(FOUND), seconds=10)


@pytest.mark.timeout(120)
def test_a_web_process_that_delivers_by_itself_does_the_same_and_answers_meanwhile(build):
    house, salon = build(redis=False)
    house.start("web", [str(BIN / "gunicorn"), "-c", "gunicorn.conf.py", "stuck:app"])
    house.await_web()
    put_probes(house.platform, salon.id, "stuck", *"ab")
    answers = set()

    def ran_alone() -> bool:
        answers.add(requests.get(house.base_url + "/health", timeout=5).status_code)
        return '"isolated.overdue"' in house.log("web")

    eventually(ran_alone, seconds=80)
    assert answers == {200}
    assert house.query(FOUND)[:2] == [(name, "processed", None, 1) for name in "ab"]
    assert house.log("web").count('"departure.stuck"') == 1
