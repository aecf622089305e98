"""Rounds: what is there is done together, one round after the other, and what hangs is overtaken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from app.services import rounds
from app.services.rounds import Rounds
from app.services.together import MOST_BYTES, MOST_IN_ROUND, MOST_ROUNDS
from tests.eventually import eventually


@dataclass(frozen=True)
class Thing:
    key: str
    size: int = 1


class Work:
    """Rounds that wait at a gate, so that a test sees what is in each."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun: list[list[str]] = []
        self.rounds: Rounds[Thing] = Rounds(self._run, name="test")

    def _run(self, group: list[Thing]) -> None:
        self.begun.append([one.key for one in group])
        assert self.gate.wait(10)

    def put(self, *keys: str, size: int = 1) -> None:
        for key in keys:
            self.rounds.put(Thing(key, size))

    def let_go(self) -> None:
        self.gate.set()
        eventually(self.rounds.is_idle, seconds=5)


@pytest.fixture
def work(monkeypatch) -> Iterator[Work]:
    monkeypatch.setattr(rounds, "IMPATIENT_SECONDS", 30.0)
    work = Work()
    yield work
    work.gate.set()


def test_a_lone_one_waits_for_no_company(work):
    work.put("a")
    eventually(lambda: work.begun, seconds=5)
    assert work.begun == [["a"]]
    assert not work.rounds.is_idle(), "until it is done"


def test_what_comes_during_a_round_is_the_next_one_in_its_order(work):
    work.put("a")
    eventually(lambda: work.begun == [["a"]], seconds=5)
    work.put("b", "c", "d")
    work.let_go()
    assert work.begun == [["a"], ["b", "c", "d"]]


def test_of_two_with_the_same_key_the_second_comes_a_round_later(work):
    work.put("a")
    eventually(lambda: work.begun == [["a"]], seconds=5)
    work.put("b", "b", "c", "b")
    work.let_go()
    assert work.begun == [["a"], ["b", "c"], ["b"], ["b"]]


def test_a_round_has_its_bounds(work):
    work.put("a")
    eventually(lambda: work.begun == [["a"]], seconds=5)
    work.put(*(f"b{number}" for number in range(MOST_IN_ROUND + 1)))
    work.put("large", size=MOST_BYTES + 1)
    work.put("small")
    work.let_go()
    assert [len(group) for group in work.begun] == [1, MOST_IN_ROUND, 2, 1]
    assert work.begun[2:] == [[f"b{MOST_IN_ROUND}", "small"], ["large"]]


def test_a_round_that_hangs_is_overtaken_but_not_by_any_number(work, monkeypatch):
    monkeypatch.setattr(rounds, "IMPATIENT_SECONDS", 0.0)
    for number in range(MOST_ROUNDS + 3):
        work.put(f"n{number}")
        eventually(lambda n=number: len(work.begun) == min(n + 1, MOST_ROUNDS), seconds=5)
    work.let_go()
    assert sorted(sum(work.begun, [])) == [f"n{number}" for number in range(MOST_ROUNDS + 3)]


def test_a_round_that_fails_ends_no_other():
    done: list[str] = []

    def run(group: list[Thing]) -> None:
        if group[0].key == "bad":
            raise RuntimeError("of this round")
        done.extend(one.key for one in group)

    house = Rounds(run, name="test")
    for key in ("a", "bad", "b"):
        house.put(Thing(key))
        eventually(house.is_idle, seconds=5)
    assert done == ["a", "b"]


def test_whatever_many_threads_put_is_done_once(monkeypatch):
    done: list[str] = []
    lock = threading.Lock()

    def run(group: list[Thing]) -> None:
        with lock:
            done.extend(one.key for one in group)

    house = Rounds(run, name="test")
    threads = [
        threading.Thread(target=lambda n=number: [house.put(Thing(f"{n}-{one}")) for one in range(500)])
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: house.is_idle() and len(done) == 4000, seconds=10)
    assert len(set(done)) == 4000
