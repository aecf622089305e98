"""PostgreSQL is killed under traffic, web processes too: what was answered 2xx is a row, once, in its lane's order."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from sandbox.children import Child, family_of, kill_all, start_child
from tests.e2e.house import BIN, ROOT, House
from tests.eventually import eventually
from tests.people import Business, open_business

LANES = 3
KEYS = "SELECT lane_key, event_key FROM webhook_delivery_log WHERE provider = 'vapi' ORDER BY id"


@pytest.fixture
def house(tmp_path, world) -> Iterator[House]:
    made = House(tmp_path, world, redis=False, spool_dir=str(tmp_path / "spool"))
    yield made
    made.close()


@pytest.fixture
def start(tmp_path) -> Iterator:
    """Start a web process that nobody restarts, so that a test may kill it for good."""
    started: list[Child] = []

    def begin(house: House, **more: str) -> Child:
        environment = {**os.environ, **house.environment, **more}
        log_path = tmp_path / f"web-{len(started)}.log"
        words = [str(BIN / "gunicorn"), "-c", "gunicorn.conf.py", "wsgi:app"]
        started.append(start_child(words, log_path=log_path, env=environment, cwd=ROOT))
        house.await_web()
        return started[-1]

    yield begin
    for process in started:
        kill_all(family_of(process.pid))
        process.wait(timeout=10)


class Sender:
    """One call's events, one after the other; remembers those that were answered with 2xx."""

    def __init__(self, house: House, salon: Business, call: str) -> None:
        self.taken: list[str] = []
        self.codes: set[int] = set()
        self._house, self._salon, self._call = house, salon, call
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            if post(self._house, self._salon, self._call, number, self.codes):
                self.taken.append(f"{number}")
            number += 1


def post(house: House, salon: Business, call: str, number: int, codes: set[int] | None = None) -> bool:
    message = {"type": "status-update", "status": f"s{number}", "call": {"id": call}}
    url = f"{house.base_url}/webhooks/vapi/{salon.vapi_token}"
    try:
        answer = requests.post(url, json={"message": message}, headers={"X-Vapi-Secret": salon.vapi_secret}, timeout=20)
    except requests.RequestException:
        return False
    if codes is not None:
        codes.add(answer.status_code)
    return answer.status_code == 200


def stored(house: House) -> dict[str, list[str]]:
    """By call, the numbers of its events in the order of the lane."""
    found: dict[str, list[str]] = {}
    for lane, key in house.query(KEYS):
        found.setdefault(lane.removeprefix("call:"), []).append(key.rpartition(":s")[2])
    return found


def waiting_in(house: House) -> int:
    return house.platform.spool.contents().lines


@pytest.mark.timeout(180)
def test_every_2xx_is_a_row_once_and_in_order_when_postgresql_was_killed_and_web_processes_with_it(house, start, world):
    salon = open_business(house.platform, world, "Salon", "+4930111110001", google=False)
    serving = start(house)
    senders = [Sender(house, salon, f"c{number}") for number in range(LANES)]
    for sender in senders:
        sender.__enter__()
    try:
        eventually(lambda: all(len(sender.taken) >= 5 for sender in senders), seconds=30)
        house.postgres.kill()
        eventually(lambda: waiting_in(house) >= 30, seconds=40)
        ready = requests.get(house.base_url + "/health/ready", timeout=10)
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        kill_all(family_of(serving.pid))  # with lines in the spool, and perhaps one half written
        assert waiting_in(house) >= 30
        start(house)  # which has never met anybody, and takes what it cannot verify
        seen = [len(sender.taken) for sender in senders]
        eventually(lambda: all(len(s.taken) >= n + 3 for s, n in zip(senders, seen, strict=True)), seconds=40)
        house.postgres.start()
        eventually(lambda: house.platform.spool.folder.is_empty(), seconds=60)
        seen = [len(sender.taken) for sender in senders]
        eventually(lambda: all(len(s.taken) >= n + 3 for s, n in zip(senders, seen, strict=True)), seconds=40)
    finally:
        for sender in senders:
            sender.__exit__()
    eventually(lambda: waiting_in(house) == 0, seconds=30)
    found = stored(house)
    for number, sender in enumerate(senders):
        mine = found[f"c{number}"]
        assert len(mine) == len(set(mine))
        assert mine == sorted(mine, key=int)
        assert set(sender.taken) <= set(mine)
        assert sender.codes == {200}


@pytest.mark.timeout(120)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_a_full_disk_means_503_with_retry_after_and_what_was_taken_before_is_kept(house, world):
    salon = open_business(house.platform, world, "Salon", "+4930111110001", google=False)
    command = [str(BIN / "gunicorn"), "-c", "gunicorn.conf.py", "wsgi:app"]
    environment = {**os.environ, **house.environment, "WEB_CONCURRENCY": "1"}
    serving = start_child(command, log_path=Path("/dev/null"), env=environment, cwd=ROOT)
    try:
        house.await_web()
        assert post(house, salon, "c0", 0)
        for process in family_of(serving.pid):  # from now on no file of theirs grows beyond this, as on a full disk
            process.rlimit(psutil.RLIMIT_FSIZE, (6000, 6000))
        house.postgres.kill()
        codes: list[requests.Response] = []
        message = {"type": "status-update", "status": "queued"}
        for number in range(30):
            codes.append(
                requests.post(
                    f"{house.base_url}/webhooks/vapi/{salon.vapi_token}",
                    json={"message": {**message, "call": {"id": f"call-{number}"}}},
                    headers={"X-Vapi-Secret": salon.vapi_secret},
                    timeout=20,
                )
            )
        taken = sum(answer.status_code == 200 for answer in codes)
        refused = [answer for answer in codes if answer.status_code == 503]
        assert taken >= 3
        assert len(refused) == 30 - taken > 0
        assert all(re.fullmatch(r"\d+", answer.headers["Retry-After"]) for answer in refused)
        house.postgres.start()
        eventually(lambda: house.platform.spool.folder.is_empty(), seconds=40)
        assert house.query("SELECT count(*) FROM webhook_delivery_log WHERE lane_key LIKE 'call:call-%'") == [(taken,)]
    finally:
        kill_all(family_of(serving.pid))
        serving.wait(timeout=10)
