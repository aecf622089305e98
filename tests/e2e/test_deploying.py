"""Deploys under load: one gunicorn takes over from another on the same socket, and nobody who connects notices."""

from __future__ import annotations

import http.client
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandbox.children import family_of, kill_all, session_of, start_child
from tests.e2e.house import BIN, ROOT, House
from tests.eventually import eventually

GUNICORN = (str(BIN / "gunicorn"), "-c", "gunicorn.conf.py", "wsgi:app")
# What systemd does with a socket of its own.
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
"""
CLIENTS = 4
ENOUGH = 20
QUEUED = 8


@pytest.fixture
def house(tmp_path, world) -> Iterator[House]:
    made = House(tmp_path, world, redis=False)
    made.environment["WEB_CONCURRENCY"] = "2"
    yield made
    made.close()


@contextmanager
def connecting(port: int) -> Iterator[Counter[str]]:
    """Many short connections, one after the other from each client; how each ended."""
    ended, stop = Counter[str](), threading.Event()

    def connect() -> None:
        while not stop.wait(0.02):
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                link.request("GET", "/health", headers={"Connection": "close"})
                ended[str(link.getresponse().status)] += 1
            except (OSError, http.client.HTTPException) as error:
                ended[type(error).__name__] += 1
            finally:
                link.close()

    clients = [threading.Thread(target=connect) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield ended
    finally:
        stop.set()
        for client in clients:
            client.join()


@pytest.mark.timeout(120)
def test_a_reload_hands_systemds_socket_over_and_says_whom_to_watch_when_all_processes_are_there(house, tmp_path):
    with socket.socket() as held, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notes:
        notes.bind(str(tmp_path / "notes"))
        notes.settimeout(60)
        held.bind(("127.0.0.1", house.port))
        held.listen(128)
        first = start_child(
            [sys.executable, "-c", AS_SYSTEMD, str(held.fileno()), *GUNICORN],
            log_path=tmp_path / "web.log",
            env={**house.environment, "NOTIFY_SOCKET": str(tmp_path / "notes")},
            cwd=ROOT,
            pass_fds=[held.fileno()],
        )
        try:
            assert read_note(notes) == first.pid
            with connecting(house.port) as ended:
                first.send_signal(signal.SIGUSR2)
                second = read_note(notes)
                assert first.wait(timeout=40) == 0
                enough = ended["200"] + ENOUGH
                eventually(lambda: ended["200"] >= enough, seconds=20)
            assert set(ended) == {"200"}
            assert second in {process.pid for process in session_of(first.pid)}
        finally:
            kill_all(session_of(first.pid))


@pytest.mark.timeout(120)
def test_who_waits_in_the_sockets_queue_of_a_process_that_stops_is_answered(house, tmp_path):
    environment = {**house.environment, "WEB_CONCURRENCY": "1", "PORT": str(house.port)}
    serving = start_child(GUNICORN, log_path=tmp_path / "web.log", env=environment, cwd=ROOT)
    try:
        house.await_web()
        (process,) = family_of(serving.pid)[1:]
        process.suspend()
        links = [http.client.HTTPConnection("127.0.0.1", house.port, timeout=20) for _ in range(QUEUED)]
        for link in links:
            link.request("GET", "/health")
        serving.send_signal(signal.SIGTERM)
        process.resume()
        assert [link.getresponse().status for link in links] == [200] * QUEUED
        assert serving.wait(timeout=20) == 0
    finally:
        kill_all(session_of(serving.pid))


def read_note(notes: socket.socket) -> int:
    """What the process says to systemd: that it is ready, and which one it is."""
    said = dict(line.split("=", 1) for line in notes.recv(4096).decode().splitlines())
    assert said["READY"] == "1"
    return int(said["MAINPID"])
