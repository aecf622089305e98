"""Processes that count together: sums stay exact whoever is killed, forks or takes over, and files stay few."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.observability import counting
from app.observability.counting import Folder, FolderBusy
from app.services.isolation import ROOT

# Counts as it is told on stdin: a line with a number is that many webhooks, an answer says that they are counted.
COUNTS = """
import os, sys
from app.observability import metrics
for line in sys.stdin:
    word = line.strip()
    if word == "fork":
        if os.fork() == 0:
            metrics.webhook_stored("vapi", "hang", "received", duplicate=False)
            os._exit(0)
        os.wait()
    elif word == "time":
        metrics.request_ended("/x", 200, 0.003)
    else:
        for _ in range(int(word)):
            metrics.webhook_stored("vapi", "hang", "received", duplicate=False)
    print("done", flush=True)
"""
Start = Callable[[], "Counting"]


class Counting:
    """A process that counts when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COUNTS],
            cwd=ROOT,
            env=os.environ | {"METRICS_DIR": str(folder), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    path = tmp_path / "counts"
    path.mkdir()
    return Folder(path)


@pytest.fixture
def start(folder: Folder) -> Iterator[Start]:
    started: list[Counting] = []

    def begin() -> Counting:
        started.append(Counting(folder.path))
        return started[-1]

    yield begin
    for one in started:
        one.kill()


def counted(folder: Folder, name: str = "voicedesk_webhooks_accepted_total") -> float:
    return sum(sample.value for metric in folder.read() for sample in metric.samples if sample.name == name)


def test_what_killed_processes_have_counted_stays_counted(folder, start):
    first, second = start(), start()
    first.tell("3")
    second.tell("4")
    first.kill()
    assert counted(folder) == 7
    second.tell("1")
    assert counted(folder) == 8


def test_folding_the_dead_leaves_the_living_and_changes_no_sum(folder, start):
    dead, alive = start(), start()
    for one in (dead, alive):
        one.tell("5")
        one.tell("time")
    dead.kill()
    before = {sample for metric in folder.read() for sample in _flat(metric)}
    folder.fold()
    assert {sample for metric in folder.read() for sample in _flat(metric)} == before
    assert len(list(folder.path.glob("*.member"))) == 1
    alive.tell("2")
    alive.kill()
    folder.fold()
    folder.fold()
    assert counted(folder) == 12
    assert counted(folder, "voicedesk_request_seconds_count") == 2
    assert sorted(file.name for file in folder.path.iterdir()) == ["archive-3", "guard"]


def test_killed_between_publishing_the_archive_and_removing_what_it_holds_nothing_counts_twice(
    folder, start, monkeypatch
):
    one = start()
    one.tell("5")
    one.kill()
    monkeypatch.setattr(Folder, "_tidy", lambda *_: None)
    folder.fold()
    assert list(folder.path.glob("counter_*.db"))
    assert counted(folder) == 5
    monkeypatch.undo()
    folder.fold()
    assert counted(folder) == 5
    assert not list(folder.path.glob("counter_*.db"))


def test_killed_while_writing_the_archive_nothing_is_lost(folder, start, monkeypatch):
    one = start()
    one.tell("5")
    one.kill()
    monkeypatch.setattr(Path, "rename", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        folder.fold()
    monkeypatch.undo()
    assert counted(folder) == 5
    folder.fold()
    assert counted(folder) == 5
    assert not list(folder.path.glob("draft-*"))


def test_a_fork_counts_for_itself_and_its_end_is_not_its_parents(folder, start):
    parent = start()
    parent.tell("2")
    parent.tell("fork")
    folder.fold()
    parent.tell("1")
    assert counted(folder) == 4
    assert len(list(folder.path.glob("*.member"))) == 1


def test_many_restarts_leave_few_files(folder, start, monkeypatch):
    monkeypatch.setattr(counting, "MOST_DEAD", 2)
    for _ in range(5):
        one = start()
        one.tell("1")
        one.kill()
        counted(folder)
    assert counted(folder) == 5
    assert len(list(folder.path.glob("counter_*.db"))) <= 3


def test_half_a_file_does_not_stand_for_all(folder, start):
    one = start()
    one.tell("5")
    one.kill()
    start().tell("2")
    torn = next(file for file in folder.path.glob("counter_*.db") if file.stem.endswith(_name(folder, dead=True)))
    torn.write_bytes(b"\xff" * 100)
    assert counted(folder) == 2
    folder.fold()
    assert counted(folder) == 2


def test_nobody_waits_for_ever_for_one_who_folds(folder, monkeypatch):
    monkeypatch.setattr(counting, "GUARD_SECONDS", 0.1)
    with folder._guard(counting.fcntl.LOCK_EX), pytest.raises(FolderBusy):
        Folder(folder.path).read()


def test_a_folder_that_cannot_be_used_costs_the_counts_and_not_the_process(tmp_path):
    (tmp_path / "file").write_text("")
    ask = (
        "from app.observability import metrics; metrics.quota_refused('address'); print(metrics.fault, metrics.shared)"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask],
        cwd=ROOT,
        env=os.environ | {"METRICS_DIR": str(tmp_path / "file" / "counts"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "Not a directory None\n"


def test_the_folder_that_a_killed_gunicorn_made_for_itself_is_swept_when_nobody_counts_there(
    tmp_path, start, folder, monkeypatch
):
    monkeypatch.setattr(counting.tempfile, "gettempdir", lambda: str(tmp_path))
    used, left, new = (tmp_path / f"{counting.PRIVATE_PREFIX}{name}" for name in ("used", "left", "new"))
    folder.path.rename(used)
    for path in (left, new):
        path.mkdir()
    folder.path = used
    one = Counting(used)
    try:
        one.tell("1")
        for path in (used, left):
            os.utime(path, (0, 0))
        counting.sweep_private()
        assert (used.exists(), left.exists(), new.exists()) == (True, False, True)
    finally:
        one.kill()


def _name(folder: Folder, *, dead: bool) -> str:
    return next(file.stem for file in folder.path.glob("*.member") if counting._is_locked(file) is not dead)


def _flat(metric):
    return [(sample.name, tuple(sorted(sample.labels.items())), sample.value) for sample in metric.samples]
