"""The spool's files: whole lines in one order, bounded, readable whatever died in the middle."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import signal
import threading
import time
from pathlib import Path

import pytest

from app.spool import UNPROVEN, Folder, Mark, SpoolRefused, tails
from tests.eventually import eventually

LANE = Mark("a" * 16)
OTHER = Mark("b" * 16)
FORKED = multiprocessing.get_context("fork")  # another process at once, without importing anything


def write_on(path: Path, name: str, told: Path) -> None:
    """Keep lines until killed, and tell of each that was kept."""
    folder = open_folder(path)
    with told.open("a") as opened:
        for number in itertools.count():
            folder.append(LANE, f"{name}-{number}".encode())
            opened.write(f"{name}-{number}\n")
            opened.flush()


def fill_up(path: Path, told: Path) -> None:
    """Keep lines in files that may not grow beyond 1,000 bytes, as on a full disk, until that is refused."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    folder = open_folder(path)
    for kept in itertools.count():
        try:
            folder.append(LANE, b"x" * 150)
        except SpoolRefused:
            told.write_text(str(kept))
            return


def open_folder(path: Path, *, most_bytes: int = 10**9) -> Folder:
    return Folder(path / "spool", most_bytes=most_bytes)


def fill(folder: Folder) -> None:
    for _ in range(10):
        folder.append(LANE, b"x" * 50)


def read_all(folder: Folder, *, most: int = 1000) -> list[str]:
    """What is there, in order, without taking it."""
    with folder.draining() as mine:
        assert mine
        return [(line.sealed or b"damaged").decode() for line in folder.read(most=most, most_bytes=10**9).lines]


def take(folder: Folder, number: int) -> list[str]:
    with folder.draining() as mine:
        assert mine
        lines = folder.read(most=number, most_bytes=10**9).lines
        folder.note_taken(lines)
        folder.remove_taken()
        return [(line.sealed or b"damaged").decode() for line in lines]


def test_lines_of_two_processes_come_out_in_the_order_in_which_they_went_in(tmp_path):
    one, two = open_folder(tmp_path), open_folder(tmp_path)
    for number in range(6):
        (one, two)[number % 2].append(LANE, f"line-{number}".encode())
    assert len(list((tmp_path / "spool").glob("*.lines"))) == 2
    assert read_all(one) == [f"line-{number}" for number in range(6)]


def test_what_is_taken_is_gone_and_the_last_one_takes_the_files_along(tmp_path):
    folder = open_folder(tmp_path)
    for number in range(3):
        folder.append(LANE, f"line-{number}".encode())
    assert take(folder, 2) == ["line-0", "line-1"]
    assert (folder.contents().lines, folder.is_empty()) == (1, False)
    assert take(folder, 2) == ["line-2"]
    assert folder.is_empty()
    assert folder.contents().lines == 0
    folder.append(LANE, b"line-3")  # its file is gone, so it begins another
    assert read_all(folder) == ["line-3"]


def test_every_process_knows_which_lanes_are_in_the_spool_and_when_no_longer(tmp_path):
    writer, other = open_folder(tmp_path), open_folder(tmp_path)
    assert not other.holds(LANE.lane)
    writer.append(LANE, b"one")
    writer.append(OTHER, b"two")
    assert other.holds(LANE.lane)
    assert other.holds("c" * 16, OTHER.lane)
    assert take(other, 1) == ["one"]
    assert not writer.holds(LANE.lane)
    assert writer.holds(OTHER.lane)
    take(writer, 1)
    assert not other.holds(OTHER.lane)


def test_a_folder_that_was_empty_is_not_read_again_until_a_file_comes(tmp_path, monkeypatch):
    writer, other = open_folder(tmp_path), open_folder(tmp_path)
    writer.append(LANE, b"one")
    take(writer, 1)
    an_hour_ago = time.time() - 3600
    os.utime(other.path, (an_hour_ago, an_hour_ago))
    looks: list[Path] = []
    look = tails.list_files
    monkeypatch.setattr(tails, "list_files", lambda path: (looks.append(path), look(path))[1])
    assert [other.holds(LANE.lane) for _ in range(5)] == [False] * 5
    assert len(looks) == 1
    writer.append(LANE, b"two")
    assert other.holds(LANE.lane)


def test_that_a_folder_was_empty_a_moment_ago_is_not_believed(tmp_path):
    """Two files may come within one tick of the file system's clock, and its time be the same after both."""
    writer, other = open_folder(tmp_path), open_folder(tmp_path)
    for number in range(50):
        writer.append(LANE, b"one")
        assert other.holds(LANE.lane), number
        take(writer, 1)
        assert not other.holds(LANE.lane), number


def test_a_torn_line_at_the_end_was_nobodys_and_holds_nothing_up(tmp_path):
    folder = open_folder(tmp_path)
    folder.append(LANE, b"whole")
    (path,) = (tmp_path / "spool").glob("*.lines")
    path.write_bytes(path.read_bytes() + b"v1 0000")
    fresh = open_folder(tmp_path)
    fresh.append(LANE, b"later")
    assert take(fresh, 10) == ["whole", "later"]
    assert fresh.is_empty()


def test_a_damaged_line_is_told_apart_and_those_behind_it_are_read(tmp_path):
    folder = open_folder(tmp_path)
    for word in (b"first", b"second", b"third"):
        folder.append(LANE, word)
    (path,) = (tmp_path / "spool").glob("*.lines")
    path.write_bytes(path.read_bytes().replace(b"second", b"s\x00cond"))
    assert read_all(open_folder(tmp_path)) == ["first", "damaged", "third"]


def test_it_grows_no_larger_than_it_may(tmp_path):
    folder = open_folder(tmp_path, most_bytes=300)
    with pytest.raises(SpoolRefused, match="as large"):
        fill(folder)
    assert folder.contents().bytes <= 300
    assert folder.fault() is not None


def test_there_is_little_room_for_what_nobody_has_proven_and_it_leaves_the_rest_alone(tmp_path):
    folder = open_folder(tmp_path)
    for _ in range(3):
        folder.append(Mark("c" * 16, UNPROVEN), b"who-knows", most_unproven=3)
    with pytest.raises(SpoolRefused):
        folder.append(Mark("c" * 16, UNPROVEN), b"who-knows", most_unproven=3)
    folder.append(LANE, b"proven")
    take(folder, 1)
    folder.append(Mark("c" * 16, UNPROVEN), b"who-knows", most_unproven=3)


def test_a_disk_that_is_full_in_the_middle_of_a_line_leaves_no_half_of_it(tmp_path):
    filling = FORKED.Process(target=fill_up, args=(tmp_path, tmp_path / "told"))
    filling.start()
    filling.join(timeout=20)
    (path,) = (tmp_path / "spool").glob("*.lines")
    assert path.read_bytes().endswith(b"\n")
    assert read_all(open_folder(tmp_path)) == ["x" * 150] * int((tmp_path / "told").read_text())


def test_what_was_said_to_be_kept_is_there_whenever_its_writers_are_killed(tmp_path):
    writers = {name: FORKED.Process(target=write_on, args=(tmp_path, name, tmp_path / name)) for name in "ab"}
    for writer in writers.values():
        writer.start()
    folder = open_folder(tmp_path)
    eventually(lambda: not folder.is_empty() and folder.contents().lines >= 60, seconds=30)
    for writer in writers.values():
        writer.kill()
        writer.join(timeout=10)
    said = {name: (tmp_path / name).read_text().splitlines() for name in writers}
    found = read_all(folder, most=100_000)
    for name in said:
        mine = [line for line in found if line.startswith(name)]
        assert mine == [f"{name}-{number}" for number in range(len(mine))]
        assert len(said[name]) <= len(mine) <= len(said[name]) + 1


def test_two_never_take_lines_out_at_once_and_a_killed_one_leaves_no_lock(tmp_path):
    one, two = open_folder(tmp_path), open_folder(tmp_path)
    one.append(LANE, b"line")
    with one.draining() as first, two.draining() as second:
        assert (first, second) == (True, False)
    with two.draining() as mine:
        assert mine


def drain_until_told(path: Path, told: Path) -> None:
    """Hold the drain with one sign of life, and say what the next one met, once there is a file ``go``."""
    folder = open_folder(path)
    with folder.draining():
        folder.go_on()
        (path / "holds").touch()
        eventually((path / "go").exists, seconds=20)
        try:
            folder.go_on()
        except SpoolRefused as refused:
            told.write_text(str(refused))


def test_one_that_was_stopped_in_the_middle_loses_its_place_and_notices_when_it_goes_on(tmp_path):
    folder, other = open_folder(tmp_path), open_folder(tmp_path)
    folder.append(LANE, b"line")
    stopped = FORKED.Process(target=drain_until_told, args=(tmp_path, tmp_path / "told"))
    stopped.start()
    eventually((tmp_path / "holds").exists)
    assert stopped.pid is not None
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        assert not folder.take_over(silent_seconds=30)
        with folder.draining() as mine:
            assert not mine
        eventually(lambda: folder.take_over(silent_seconds=0.2))
        assert not other.take_over(silent_seconds=0.2), "it was taken away once"
        with folder.draining() as mine, other.draining() as theirs:
            assert (mine, theirs) == (True, False)
            folder.go_on()
            (tmp_path / "go").touch()
            os.kill(stopped.pid, signal.SIGCONT)
            stopped.join(timeout=20)
            folder.go_on()
        assert (tmp_path / "told").read_text() == "another process drains it now"
    finally:
        stopped.kill()
    with other.draining() as mine:
        assert mine


def test_from_one_who_gives_no_signs_of_life_at_all_nothing_is_taken(tmp_path):
    folder, other = open_folder(tmp_path), open_folder(tmp_path)
    folder.append(LANE, b"line")
    with folder.draining():
        assert not other.take_over(silent_seconds=0)


def test_threads_that_write_at_once_all_find_their_lines(tmp_path):
    folder = open_folder(tmp_path)

    def write(name: int) -> None:
        for number in range(20):
            folder.append(LANE, f"{name}-{number}".encode())

    threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read_all(folder)
    assert len(found) == 160
    for name in range(8):
        assert [line for line in found if line.startswith(f"{name}-")] == [f"{name}-{number}" for number in range(20)]


def test_lines_can_be_erased_while_others_go_on_writing(tmp_path):
    folder, writer = open_folder(tmp_path), open_folder(tmp_path)
    for word in (b"keep", b"erase", b"keep"):
        writer.append(LANE, word)
    take(folder, 1)
    with folder.draining():
        assert folder.rewrite(lambda line: line.sealed != b"erase") == 1
    writer.append(LANE, b"after")
    assert read_all(folder) == ["keep", "after"]
    assert b"erase" not in b"".join(path.read_bytes() for path in (tmp_path / "spool").iterdir() if path.is_file())


def test_what_was_set_aside_holds_nothing_up_and_can_be_taken_back(tmp_path):
    folder = open_folder(tmp_path)
    folder.append(LANE, b"odd")
    with folder.draining():
        lines = folder.read(most=1, most_bytes=1000).lines
        folder.set_aside(lines)
        folder.note_taken(lines)
        assert folder.remove_taken()
    assert (folder.contents().aside, folder.contents().lines) == (1, 0)
    with folder.draining():
        assert folder.take_back() == 1
    assert read_all(folder) == ["odd"]


def test_files_and_folder_are_for_their_owner_alone(tmp_path):
    folder = open_folder(tmp_path)
    folder.append(LANE, b"line")
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "spool").iterdir())
