"""`make demo` as a person meets it: a table that is right, data that stays, and nothing left running."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests

from sandbox.children import await_gone
from sandbox.demo import render
from sandbox.player import Row
from sandbox.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 100.0


def start_demo(folder: Path, port: int, **settings: str) -> subprocess.Popen[str]:
    environment = {**os.environ, **settings, "PORT": str(port), "DEMO_FOLDER": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-m", "sandbox.demo"],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def services(folder: Path) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid, _ in json.loads((folder / "pids.json").read_text()).values()]


@pytest.mark.timeout(300)
def test_a_call_is_played_to_its_text_and_a_second_demo_keeps_the_first_ones_data(tmp_path):
    folder, port = tmp_path / "demo", free_port()
    # Things a person may have exported must not reach the demo.
    exported = {"DATABASE_URL": "postgresql://nobody@192.0.2.1/nothing", "HTTP_PROXY": "http://192.0.2.1:9"}
    once = start_demo(folder, port, ONCE="1", **exported)
    said, _ = once.communicate(timeout=SECONDS)
    assert once.returncode == 0, said
    assert "WRONG" not in said
    table = said.partition("where to look")[0]
    assert max(len(line) for line in table.splitlines()) <= 100
    assert not (folder / "pids.json").exists()
    assert (folder / "env").stat().st_mode & 0o077 == 0
    env, remembered = (folder / "env").read_text(), (folder / "demo.json").read_text()

    serving = start_demo(folder, port, ONCE="")
    try:
        lines = []
        assert serving.stdout is not None
        for line in serving.stdout:
            lines.append(line)
            if line.startswith("ready at"):
                break
        assert lines[-1].startswith(f"ready at http://127.0.0.1:{port}"), "".join(lines)
        assert (folder / "env").read_text() == env
        assert (folder / "demo.json").read_text() == remembered
        assert requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=5).json()["status"] == "healthy"
        sourced = "set -a; . $0; set +a; exec $1 -m flask --app wsgi appointments list --json"
        command = ["/bin/sh", "-c", sourced, str(folder / "env"), sys.executable]
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        starts = [row["starts_at"] for row in json.loads(told.stdout) if row["status"] == "booked"]
        assert len(starts) == len(set(starts)) == 2
        processes = services(folder)
        assert len(processes) == 6
    finally:
        serving.send_signal(signal.SIGINT)
        began = time.monotonic()
        serving.communicate(timeout=60)
    assert serving.returncode == 0
    assert time.monotonic() - began < 30
    assert await_gone(processes, seconds=1)


def test_a_taken_port_is_named_with_who_has_it_and_nothing_is_started(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refused = start_demo(tmp_path / "demo", port)
        said, _ = refused.communicate(timeout=SECONDS)
    assert refused.returncode == 2
    assert f"port {port} is taken by process {os.getpid()}" in said
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1"])
def test_a_port_that_is_none_is_refused_in_one_line(tmp_path, port):
    refused = start_demo(tmp_path / "demo", port)
    said, _ = refused.communicate(timeout=SECONDS)
    assert refused.returncode == 2
    assert said.count("\n") == 1
    assert "PORT must be a number" in said


def test_a_row_that_is_not_as_it_should_be_is_marked_and_explained():
    table = render([Row("the text", "delivered: " + "a long text " * 20, 1234.5), Row("at Twilio", "-", None, "none")])
    assert "1,234 ms  ok" in table
    assert table.endswith("WRONG: none")
    assert "!!" in table
    assert max(len(line) for line in table.splitlines()) <= 100
