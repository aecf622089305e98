"""The embedded servers keep what they promised through crashes, freezes and leftovers."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from sandbox.children import await_gone, family_of, is_alive
from sandbox.ports import free_port, port_taken
from sandbox.postgres import EmbeddedPostgres, create_roles_and_database
from sandbox.unprivileged import HOME, MEMORY
from sandbox.valkey import EmbeddedValkey
from tests.memory import folder_in_memory

FAST = {"fsync": "off"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A cluster whose server a test may kill; the next test finds it running."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("cluster") / "postgres", settings=FAST)
    server.start()
    ask(server, "CREATE TABLE kept (word text)")
    yield server
    server.stop()


@pytest.fixture
def running(cluster: EmbeddedPostgres) -> EmbeddedPostgres:
    cluster.start()
    return cluster


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path / "valkey")
    server.start()
    yield server
    server.stop()


def ask(server: EmbeddedPostgres, statement: str, url: str | None = None) -> list[tuple[object, ...]]:
    with contextlib.closing(psycopg2.connect(url or server.superuser_url(), connect_timeout=5)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def test_what_was_committed_is_there_after_kill_9_and_nothing_of_the_old_server_is(running):
    ask(running, "INSERT INTO kept VALUES ('before the crash')")
    family = family_of(running.pid)
    assert len(family) > 3

    running.kill()
    assert not any(is_alive(process) for process in family)
    running.start()

    assert ("before the crash",) in ask(running, "SELECT word FROM kept")


def test_a_pid_file_that_names_a_living_stranger_does_not_stop_a_start(running):
    running.stop()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (running.data_dir / "postmaster.pid").write_text(f"{stranger.pid}\n{running.data_dir}\n1\n{running.port}\n\n\n")
        running.start()
        assert stranger.poll() is None
        stranger.kill()
    assert ask(running, "SELECT 1") == [(1,)]


def test_a_pid_file_that_names_a_zombie_does_not_stop_a_start(running):
    running.stop()
    dead = subprocess.Popen(["true"])
    try:
        assert await_gone([psutil.Process(dead.pid)], seconds=5)  # ended, and not yet waited for
        (running.data_dir / "postmaster.pid").write_text(f"{dead.pid}\n{running.data_dir}\n1\n{running.port}\n\n\n")
        running.start()
    finally:
        dead.wait()
    assert ask(running, "SELECT 1") == [(1,)]


def test_a_folder_that_another_run_uses_is_left_to_it(running):
    second = EmbeddedPostgres(_wanted(running), settings=FAST)
    with pytest.raises(RuntimeError, match="another run uses"):
        second.start()
    assert ask(running, "SELECT 1") == [(1,)]


def test_a_frozen_server_is_silent_then_goes_on_and_can_be_stopped_frozen(running):
    running.freeze()
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(running.superuser_url(), connect_timeout=2)
    running.thaw()
    assert ask(running, "SELECT 1") == [(1,)]

    running.freeze()
    began = time.monotonic()
    running.stop()
    assert time.monotonic() - began < 10
    assert running.log_path.read_text().rstrip().endswith("database system is shut down")


def test_stopping_does_not_wait_for_clients_and_leaves_a_clean_cluster(running):
    with contextlib.closing(psycopg2.connect(running.superuser_url())) as idle:
        idle.cursor().execute("SELECT 1")
        running.restart()
    assert ask(running, "SELECT 1") == [(1,)]


def test_nobody_comes_in_without_a_password_or_from_outside(running):
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(running.url("postgres", "wrong", "postgres"))
    listening = {c.laddr.ip for c in psutil.Process(running.pid).net_connections("all") if c.status == "LISTEN"}
    assert listening == {"127.0.0.1"}
    assert ask(running, "SHOW unix_socket_directories") == [("",)]


def test_it_does_not_run_as_root_and_its_folder_is_its_own(running):
    assert psutil.Process(running.pid).uids().real != 0
    assert running.data_dir.stat().st_mode & 0o777 == 0o700


def test_a_cluster_that_is_wanted_in_memory_lies_there_whoever_runs_it(tmp_path):
    with folder_in_memory() as memory:
        server = EmbeddedPostgres((memory or tmp_path) / "postgres", settings=FAST)
        place = MEMORY if memory else tmp_path if os.geteuid() else HOME
        assert server.home.resolve().is_relative_to(place)
    assert memory is None or not memory.exists()


def test_a_cluster_that_begins_as_anothers_copy_has_its_roles_and_rows_and_leaves_it_as_it_was(tmp_path):
    first, second = (EmbeddedPostgres(tmp_path / name, settings=FAST) for name in ("first", "second"))
    first.start()
    made = create_roles_and_database(first, "shop")
    ask(first, "CREATE TABLE kept AS SELECT 'here' AS word", made[0])
    first.stop()
    second.begin_as(first)
    for server in (first, second):
        server.start()
    try:
        copied = create_roles_and_database(second, "shop")
        assert [url.replace(f":{second.port}/", f":{first.port}/") for url in copied] == list(made)
        ask(second, "UPDATE kept SET word = 'there'", copied[0])
        assert ask(first, "SELECT word FROM kept", made[0]) == [("here",)]
        assert ask(second, "SELECT word FROM kept", copied[0]) == [("there",)]
    finally:
        first.stop()
        second.stop()


def test_an_interrupted_initdb_is_begun_anew(tmp_path):
    server = EmbeddedPostgres(tmp_path / "postgres", settings=FAST)
    half = server.data_dir.parent / "unfinished"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    server.start()
    try:
        assert ask(server, "SELECT 1") == [(1,)]
        assert not half.exists()
    finally:
        server.stop()


def test_two_clusters_run_side_by_side(running, tmp_path):
    second = EmbeddedPostgres(tmp_path / "second", settings=FAST)
    second.start()
    try:
        assert second.port != running.port
        assert ask(second, "SELECT to_regclass('kept')") == [(None,)]
    finally:
        second.stop()


def test_deleting_the_wanted_folder_deletes_the_cluster(tmp_path):
    wanted = tmp_path / "postgres"
    server = EmbeddedPostgres(wanted, settings=FAST)
    server.start()
    server.stop()
    if wanted.is_symlink():
        wanted.unlink()
    else:
        shutil.rmtree(wanted)

    again = EmbeddedPostgres(wanted, settings=FAST)
    assert not again.data_dir.exists()


def test_roles_and_database_can_be_made_again_and_by_many_at_once(running):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: create_roles_and_database(running, f"shop_{n % 4}"), range(8)))
    owner_url, app_url = made[0]
    assert made[4] == made[0]
    assert ask(running, "SELECT current_user", app_url) == [("voicedesk_app",)]
    roles = ask(
        running,
        "SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb FROM pg_roles"
        " WHERE rolname LIKE 'voicedesk%' ORDER BY rolname",
        owner_url,
    )
    assert roles == [("voicedesk_app", False, False, False, False), ("voicedesk_owner", False, True, True, True)]


def test_durability_is_on_unless_a_test_says_otherwise(tmp_path):
    server = EmbeddedPostgres(tmp_path / "durable")
    server.start()
    try:
        assert ask(server, "SELECT current_setting('fsync'), current_setting('synchronous_commit')") == [("on", "on")]
    finally:
        server.stop()


def test_servers_started_by_a_thread_outlive_it_and_end_with_the_process(tmp_path):
    script = (
        "import sys, threading, time\n"
        "from pathlib import Path\n"
        "from sandbox.postgres import EmbeddedPostgres\n"
        "from sandbox.valkey import EmbeddedValkey\n"
        "servers = [EmbeddedPostgres(Path(sys.argv[1]) / 'p', settings={'fsync': 'off'}),"
        " EmbeddedValkey(Path(sys.argv[1]) / 'v')]\n"
        "for server in servers:\n"
        "    thread = threading.Thread(target=server.start); thread.start(); thread.join()\n"
        "time.sleep(0.3)\n"
        "print(*[server.pid for server in servers], flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        servers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(servers) == 2
        assert all(is_alive(server) for server in servers)
    finally:
        parent.kill()
        parent.communicate()
    if sys.platform == "linux":
        assert await_gone(servers, seconds=10)


def test_valkey_keeps_what_it_was_given_through_a_stop_and_nothing_when_emptied(valkey):
    client = redis.Redis.from_url(valkey.url)
    client.set("word", "kept")
    valkey.restart()
    assert client.get("word") == b"kept"
    valkey.restart(empty=True)
    assert client.get("word") is None


def test_valkey_keeps_what_is_a_second_old_through_kill_9(valkey):
    client = redis.Redis.from_url(valkey.url)
    client.set("word", "kept")
    time.sleep(1.2)
    valkey.kill()
    valkey.start()
    assert client.get("word") == b"kept"


def test_a_frozen_valkey_holds_its_connections_silent(valkey):
    client = redis.Redis.from_url(valkey.url, socket_timeout=0.2)
    client.ping()
    valkey.freeze()
    with pytest.raises(redis.TimeoutError):
        client.ping()
    valkey.thaw()
    assert client.ping()
    valkey.freeze()  # and the fixture stops it frozen


def test_valkey_refuses_writes_rather_than_forgetting_and_asks_for_a_password(valkey):
    settings = redis.Redis.from_url(valkey.url, decode_responses=True).config_get("maxmemory-policy", "appendfsync")
    assert settings == {"maxmemory-policy": "noeviction", "appendfsync": "everysec"}
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=valkey.port).ping()
    assert valkey.url.split("@")[0].split(":")[-1] not in " ".join(psutil.Process(valkey.pid).cmdline())


def test_a_taken_port_is_described_with_who_has_it():
    assert port_taken(free_port()) is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert str(os.getpid()) in (port_taken(server.getsockname()[1]) or "")


def test_free_ports_do_not_depend_on_the_seed_that_tests_share():
    import random

    random.seed(1)
    first = [free_port() for _ in range(3)]
    random.seed(1)
    assert first != [free_port() for _ in range(3)]


def _wanted(server: EmbeddedPostgres) -> Path:
    origin = server.data_dir.parent / "origin"
    return Path(origin.read_text()) if origin.exists() else server.data_dir.parent
