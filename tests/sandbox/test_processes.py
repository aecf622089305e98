"""The supervisor brings back what dies, stops what it started, and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from sandbox.children import await_gone, is_alive
from sandbox.processes import Command, Supervisor

SECONDS = 15.0
# A child that has a child of its own, whose pid it prints.
PARENT = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '300']).pid, flush=True); time.sleep(300)"


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path)
    yield made
    made.stop()


def command(folder: Path, *words: str, name: str = "service") -> Command:
    return Command(words, log_path=folder / f"{name}.log", env=dict(os.environ), cwd=folder)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def recorded(folder: Path) -> dict[str, int]:
    try:
        return {name: pid for name, (pid, _) in json.loads((folder / "pids.json").read_text()).items()}
    except FileNotFoundError:
        return {}


def test_a_service_that_is_killed_is_started_again_and_recorded_anew(supervisor, tmp_path):
    service = command(tmp_path, "sleep", "300")
    supervisor.start("service", service)
    first = service.pid

    os.kill(first, signal.SIGKILL)

    eventually(lambda: recorded(tmp_path).get("service") not in (None, first))
    assert service.is_running()


def test_what_a_dead_service_had_started_is_ended_before_it_is_started_again(supervisor, tmp_path):
    service = command(tmp_path, sys.executable, "-c", PARENT)
    supervisor.start("service", service)
    eventually(lambda: bool(service.log_path.read_text()))
    orphan = psutil.Process(int(service.log_path.read_text().split()[0]))

    dead = service.pid
    os.kill(dead, signal.SIGKILL)

    eventually(lambda: recorded(tmp_path).get("service") not in (None, dead))
    assert not is_alive(orphan)


def test_one_that_dies_at_once_is_tried_less_and_less_often(tmp_path):
    told: list[str] = []
    supervisor = Supervisor(tmp_path, tell=told.append)
    supervisor.start("hasty", command(tmp_path, "false"))
    time.sleep(3)
    supervisor.stop()
    assert 1 <= len(told) <= 4
    assert told[0] == "hasty died and was started again"


def test_one_whose_program_is_missing_is_told_of_at_once(supervisor, tmp_path):
    with pytest.raises(FileNotFoundError):
        supervisor.start("missing", command(tmp_path, "/nowhere/program"))


def test_all_are_stopped_in_reverse_and_their_children_with_them(tmp_path):
    supervisor = Supervisor(tmp_path)
    script = f"import signal, sys, time; signal.signal(15, lambda *_: sys.exit(print(time.time()))); {PARENT}"
    services = [command(tmp_path, sys.executable, "-c", script, name=f"number-{number}") for number in range(2)]
    for number, service in enumerate(services):
        supervisor.start(f"number-{number}", service)
        eventually(lambda log=service.log_path: bool(log.read_text()))
    family = [psutil.Process(int(service.log_path.read_text().split()[0])) for service in services]

    supervisor.stop()

    first, second = (float(service.log_path.read_text().split()[1]) for service in services)
    assert second < first
    assert not any(is_alive(process) for process in family)
    assert not recorded(tmp_path)


def test_a_frozen_service_is_stopped_all_the_same(supervisor, tmp_path):
    service = command(tmp_path, "sleep", "300")
    supervisor.start("service", service)
    os.kill(service.pid, signal.SIGSTOP)
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < 5
    assert not service.is_running()


def test_a_folder_has_one_supervisor_at_a_time(supervisor, tmp_path):
    supervisor.start("service", command(tmp_path, "sleep", "300"))
    with pytest.raises(RuntimeError, match=f"process {os.getpid()} already runs"):
        Supervisor(tmp_path)
    assert recorded(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path):
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from sandbox.processes import Command, Supervisor\n"
        "folder = Path(sys.argv[1])\n"
        "service = Command(['sleep', '300'], log_path=folder / 'log', env=dict(os.environ), cwd=folder)\n"
        "Supervisor(folder).start('service', service)\n"
        "print(service.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    child = psutil.Process(int(owner.stdout.readline()))
    owner.kill()
    owner.communicate()
    assert await_gone([child], seconds=SECONDS)


def test_leftovers_of_an_earlier_run_are_ended_and_strangers_with_their_number_are_not(tmp_path):
    leftover = subprocess.Popen(["sleep", "300"], start_new_session=True)
    stranger = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        started = psutil.Process(leftover.pid).create_time()
        pids = {"left": [leftover.pid, started], "taken": [stranger.pid, started - 3600]}
        (tmp_path / "pids.json").write_text(json.dumps(pids))

        Supervisor(tmp_path).stop()

        assert leftover.wait(timeout=5) == -signal.SIGTERM
        assert stranger.poll() is None
    finally:
        for process in (leftover, stranger):
            process.kill()
            process.wait()
