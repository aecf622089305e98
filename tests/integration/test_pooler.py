"""Nothing outlives a transaction: whole flows with each on a connection of its own, and through PgBouncer."""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url

from app.config import Settings
from app.services.platform import Platform
from sandbox.children import start_child, stop_child
from sandbox.ports import LOOPBACK, free_port
from sandbox.unprivileged import HOME, Account
from tests.conftest import Urls
from tests.eventually import eventually
from tests.people import Business

ADA = "+4915112345678"
PGBOUNCER = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
SERVER_CONNECTIONS = 3  # far fewer than the threads below, so that they get each other's
CONFIGURATION = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = {loopback}
listen_port = {own_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {connections}
"""


@pytest.fixture
def pooler(database_urls: Urls) -> Iterator[str]:
    """A PgBouncer in transaction mode in front of this test's database; its URL for the login role."""
    account = Account()
    folder = HOME / f"voicedesk-pgbouncer-{secrets.token_hex(6)}"  # where also another user than root may read
    folder.mkdir(mode=0o700)
    login = make_url(database_urls.app)
    port = free_port()
    (folder / "users").write_text(f'"{login.username}" "{login.password}"\n')
    (folder / "ini").write_text(
        CONFIGURATION.format(
            host=login.host,
            port=login.port,
            loopback=LOOPBACK,
            own_port=port,
            folder=folder,
            connections=SERVER_CONNECTIONS,
        )
    )
    for path in (folder, folder / "users", folder / "ini"):
        account.own(path)
    process = start_child([PGBOUNCER or "", folder / "ini"], log_path=folder / "log", **account.identity)
    try:
        eventually(lambda: _listens(port), seconds=10)
        yield login.set(drivername="postgresql+psycopg2", host=LOOPBACK, port=port).render_as_string(
            hide_password=False
        )
    finally:
        stop_child(process, with_signal=signal.SIGTERM, seconds=5)
        shutil.rmtree(folder)


@pytest.fixture(
    params=[
        "fresh connections",
        pytest.param("pgbouncer", marks=pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")),
    ]
)
def way(request: pytest.FixtureRequest) -> str:
    """How this test's statements reach the server."""
    chosen: str = request.param
    return chosen


@pytest.fixture
def settings(settings: Settings, way: str, request: pytest.FixtureRequest) -> Settings:
    """The usual settings, whose database is behind the pooler where there is one."""
    if way != "pgbouncer":
        return settings
    return settings.model_copy(update={"database_url": request.getfixturevalue("pooler")})


@pytest.fixture
def platform(platform: Platform, way: str) -> Platform:
    """The usual platform; without a pooler no connection serves a second transaction."""
    if way != "pgbouncer":
        event.listen(platform.database.engine, "checkin", lambda _, record: record.invalidate())
    return platform


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def backends(platform: Platform, business: Business, number: int) -> list[tuple[int, str]]:
    """The server process, and the organization it sees, of each of so many transactions."""
    found = []
    for _ in range(number):
        with platform.database.transaction(business.id) as session:
            pid, name = session.execute(text("SELECT pg_backend_pid(), min(name) FROM organizations")).one()
        found.append((pid, name))
    return found


def morning() -> str:
    day = datetime.now(ZoneInfo("Europe/Berlin")) + timedelta(days=2)
    return day.replace(hour=10, minute=0, second=0, microsecond=0).isoformat()


def test_the_way_is_what_it_says(platform, people, way):
    pids = {pid for pid, _ in backends(platform, people.salon, 6)}
    ports = {make_url(url).port for url in (platform.settings.database_url, platform.settings.owner_database_url)}
    assert len(ports) == (2 if way == "pgbouncer" else 1)
    assert len(pids) == 6 if way == "fresh connections" else len(pids) <= SERVER_CONNECTIONS


def test_an_event_is_taken_delivered_and_not_taken_twice(client, platform, people, settle):
    message = {"type": "status-update", "status": "in-progress", "call": {"id": "c1"}}
    for _ in range(2):
        assert people.salon.vapi(client, message).status_code == 200

    def statuses() -> list[str]:
        with platform.database.transaction(system=True) as session:
            return list(session.execute(text("SELECT status FROM webhook_delivery_log")).scalars())

    settle(lambda: statuses() == ["processed"])
    with platform.database.transaction(people.salon.id) as session:
        assert session.execute(text("SELECT count(*) FROM calls")).scalar() == 1
    platform.caretaker.sweep()
    assert statuses() == ["processed"]


def test_a_booking_reaches_the_calendar_and_its_text_the_customer(client, platform, people, world, settle):
    said = people.salon.tool(client, "book_appointment", call_id="c1", start=morning(), name="Ada", phone=ADA)
    assert said.startswith("Booked for")
    settle(lambda: [message["to"] for message in world.messages()] == [ADA])
    assert len(world.events(people.salon.calendar_id)) == 1
    again = people.salon.tool(client, "book_appointment", call_id="c2", start=morning(), name="Bo", phone=ADA)
    assert not again.startswith("Booked for")


def test_organizations_that_share_connections_see_only_their_own(platform, people):
    shifts = [people.salon, people.dental] * 6
    with ThreadPoolExecutor(len(shifts)) as pool:
        seen = list(pool.map(lambda business: backends(platform, business, 8), shifts))
    for business, found in zip(shifts, seen, strict=True):
        assert {name for _, name in found} == {business.name}


def test_what_a_transaction_set_is_gone_in_the_next_one_on_its_connection(platform, people):
    backends(platform, people.salon, 4)
    for _ in range(SERVER_CONNECTIONS + 1):
        with platform.database.engine.connect() as connection:
            statement = "SELECT current_setting('voicedesk.org_id', true), current_user, current_setting('role')"
            org_id, user, role = connection.execute(text(statement)).one()
        assert (org_id or "", user, role) == ("", "voicedesk_app", "none")
