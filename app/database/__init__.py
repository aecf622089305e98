"""Engine, session, and the one way to open a transaction.

Owns which database role and which organization a statement runs under: every statement of the
product goes through ``Database.transaction`` (or ``intake``), so that row-level security always
applies. Must not know any table.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from cryptography.fernet import Fernet, MultiFernet
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from app.config import Settings
from app.database import at_once, patience
from app.database.at_once import AtOnce
from app.database.patience import NoAnswer
from app.database.pings import Pings
from app.database.roles import RoleNames, find_role_faults
from app.errors import ConfigurationError, DatabaseUnavailable

CONNECT_TIMEOUT_SECONDS = 2
POOL_WAIT_SECONDS = 2.0
STATEMENT_TIMEOUT_MS = 15_000
INTAKE_TIMEOUT_MS = 2_000
# A host that is cut off in the middle of a transaction says nothing any more, and its locks would stay until the
# server's own keepalive gives it up: by default two hours. Nothing of ours waits between two statements.
IDLE_MS = 15_000
BEYOND_STATEMENT_SECONDS = 0.5  # the server ends a statement at its time limit; a hung one does not
PING_SECONDS = 2.0
LEAST_SECONDS = 0.05  # with less left nothing is begun
LEFT_ALONE_SECONDS = 1.0  # after a hang, or every thread would stand in front of it again at once

# SQLSTATE classes that say "the server, not the statement": connection lost, resources, shutting down,
# read-only after a failover, disk full.
_UNDEFINED = ("42P01", "42883")  # table, function
_UNAVAILABLE_STATES = ("08", "53", "57P", "25006", "58")


class Database:
    """One process's connections, used as the login role, which alone may see nothing."""

    def __init__(self, settings: Settings) -> None:
        self.roles = RoleNames(settings.database_role_prefix)
        self._checked = False
        self._check_lock = threading.Lock()
        self._left_alone_until = 0.0
        self._hangs = False
        self._haste = threading.local()
        # Sessions bring it along, for what rows keep sealed themselves (models/aliases.py).
        self._info = {"opener": MultiFernet([Fernet(key) for key in settings.credentials_keys])}
        patience.install()
        self._pings = Pings()
        self.engine: Engine = create_engine(
            settings.database_url,
            pool_size=settings.database_pool_size,
            max_overflow=0,
            pool_timeout=POOL_WAIT_SECONDS,
            hide_parameters=True,  # parameters are phone numbers and texts; they must not reach a log
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "application_name": "voicedesk",
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "tcp_user_timeout": 10_000,
            },
        )
        self._pings.listen(self.engine)

    @contextmanager
    def transaction(
        self, org_id: UUID | None = None, *, system: bool = False, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS
    ) -> Iterator[Session]:
        """One transaction as the tenant ``org_id``, or as ``system``: commits at the end, rolls back on an error.

        Exactly one of the two must be given. Raises DatabaseUnavailable when the server is away,
        and ConfigurationError when the login role could bypass row-level security.
        """
        statement_timeout_ms = self._in_haste(statement_timeout_ms)
        # One round trip; the settings end with the transaction, as a pooler between us needs it.
        settings = (
            f"{self._as_whom(org_id, system=system)}; SET LOCAL statement_timeout = {int(statement_timeout_ms)};"
            f" SET LOCAL idle_in_transaction_session_timeout = {IDLE_MS}"
        )
        with self._session(statement_timeout_ms, settings) as session:
            yield session

    @contextmanager
    def intake(self, *, lock_timeout_ms: int | None = None) -> Iterator[Session]:
        """One transaction as the intake role, which can only add to the inbox, for any organization.

        With ``lock_timeout_ms`` no lock is waited for longer.
        """
        statement_timeout_ms = self._in_haste(INTAKE_TIMEOUT_MS)
        settings = (
            f"SET LOCAL ROLE {self.roles.intake}; SET LOCAL statement_timeout = {statement_timeout_ms};"
            f" SET LOCAL idle_in_transaction_session_timeout = {IDLE_MS}"
        ) + (f"; SET LOCAL lock_timeout = {lock_timeout_ms}" if lock_timeout_ms is not None else "")
        with self._session(statement_timeout_ms, settings) as session:
            yield session

    def intake_at_once(
        self, statements: str, values: Mapping[str, Any], *, lock_timeout_ms: int | None = None
    ) -> Sequence[Any]:
        """One transaction as the intake role in one message: what the last statement returns, when it is committed.

        ``statements`` are psycopg2's, parameters included, and must be safe to repeat: a connection that is found
        dead in the middle of it is replaced, and nobody knows what the dead one has done. (PostgreSQL, "Multiple
        Statements in a Simple Query": one implicit transaction, committed before the last one is said to be done.)
        """
        settings = f"SET LOCAL ROLE {self.roles.intake}"
        if lock_timeout_ms is not None:
            settings += f"; SET LOCAL lock_timeout = {lock_timeout_ms}"
        return self._at_once(INTAKE_TIMEOUT_MS, settings, statements, values)

    def at_once(self, org_id: UUID | None = None, *, system: bool = False) -> AtOnce:
        """Runs statements as the tenant ``org_id`` or as ``system``, each as ``intake_at_once`` does: in a transaction
        of its own, which is one message. Exactly one of the two must be given.
        """
        settings = self._as_whom(org_id, system=system)
        return AtOnce(lambda message, values: self._at_once(STATEMENT_TIMEOUT_MS, settings, message, values))

    def _at_once(self, most_ms: int, settings: str, statements: str, values: Mapping[str, Any]) -> Sequence[Any]:
        for without_ping in (True, False):
            timeout_ms = self._in_haste(most_ms)
            message = f"{settings}; SET LOCAL statement_timeout = {timeout_ms}; {statements}"
            with self._guarded(timeout_ms):
                try:
                    with self._pings.left_out(without_ping):
                        return at_once.ask(self.engine, message, values)
                except DBAPIError as error:
                    if not (without_ping and _was_dead(error)):
                        raise
        raise AssertionError("the second time returns or raises")

    def _as_whom(self, org_id: UUID | None, *, system: bool) -> str:
        """The settings that make it so, until the transaction ends."""
        if (org_id is None) is not system:
            raise ValueError("a transaction belongs to one organization or to the system")
        role = self.roles.system if system else self.roles.tenant
        return f"SET LOCAL ROLE {role}; SELECT set_config('voicedesk.org_id', '{org_id or ''}', true)"

    def hurry(self, seconds: float | None) -> None:
        """From now on all that this thread asks may take so long together; None: as long as each may take."""
        self._haste.until = math.inf if seconds is None else time.monotonic() + seconds

    def seconds_left(self, most: float) -> float:
        """For how long this thread may wait for something of the database's: ``most``, or less in a hurry."""
        return max(0.0, min(most, getattr(self._haste, "until", math.inf) - time.monotonic()))

    def _in_haste(self, statement_timeout_ms: int) -> int:
        """How long a statement may take a thread that may be in a hurry; raises DatabaseUnavailable without time."""
        left = getattr(self._haste, "until", math.inf) - time.monotonic()
        if left < LEAST_SECONDS:
            raise DatabaseUnavailable("the database took too long")
        return statement_timeout_ms if left == math.inf else min(statement_timeout_ms, int(left * 1000))

    @contextmanager
    def _session(self, statement_timeout_ms: int, settings: str) -> Iterator[Session]:
        with self._guarded(statement_timeout_ms), self._begin(settings) as session:
            yield session
            session.commit()

    def _begin(self, settings: str) -> Session:
        """A session in a transaction that has its settings. A dead connection fails here, where nothing is done yet."""
        for without_ping in (True, False):
            session = Session(self.engine, expire_on_commit=False, info=self._info)
            try:
                with self._pings.left_out(without_ping):
                    session.connection().exec_driver_sql(settings)
                return session
            except BaseException as error:
                session.close()
                if not (without_ping and _was_dead(error)):
                    raise
        raise AssertionError("the second time returns or raises")

    @contextmanager
    def _guarded(self, statement_timeout_ms: int) -> Iterator[None]:
        """Within its time, and its failures told apart: the server's are DatabaseUnavailable."""
        self._leave_alone()
        try:
            if not self._checked:
                self.verify_role()
            with patience.patience(
                statement_timeout_ms / 1000 + BEYOND_STATEMENT_SECONDS,
                until=getattr(self._haste, "until", math.inf),
            ):
                yield
        except PoolTimeout:
            raise DatabaseUnavailable("no free database connection") from None
        except DBAPIError as error:
            self._note_hang(error)
            if is_unavailable(error):
                raise DatabaseUnavailable("the database is away") from None
            if getattr(error.orig, "pgcode", None) in _UNDEFINED:
                raise ConfigurationError(
                    "DATABASE_URL: tables are missing; run `flask --app wsgi db upgrade`"
                ) from None
            raise

    def verify_role(self) -> None:
        """Refuse (ConfigurationError) a login role that could see another organization's rows.

        Behavioural, because a plain GRANT lets policies apply by inheritance, which no attribute shows.
        Checked once a process; raises DatabaseUnavailable when the server cannot be asked. Who waited for
        another thread's check of a hung server does not stand in front of it a second time.
        """
        with self._check_lock:
            if self._checked:
                return
            self._leave_alone()
            try:
                with patience.patience(PING_SECONDS), self.engine.connect() as connection:
                    faults = find_role_faults(connection, self.roles)
            except (DBAPIError, PoolTimeout) as error:
                self._note_hang(error)
                raise DatabaseUnavailable("the database is away") from error
            if faults:
                raise ConfigurationError("DATABASE_URL: " + "; ".join(faults))
            self._checked = True

    def ping(self) -> None:
        """One trivial statement; raises DatabaseUnavailable."""
        self._leave_alone()
        try:
            with patience.patience(PING_SECONDS), self.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except (DBAPIError, PoolTimeout) as error:
            self._note_hang(error)
            raise DatabaseUnavailable("the database is away") from None

    def answers(self) -> bool:
        """Whether the server answers, also while it is left alone because it hung; then this thread asks for all.

        Called again and again by one thread, it keeps all others from standing in front of a server that hangs.
        """
        if self._hangs:
            self._left_alone_until = time.monotonic() + PING_SECONDS + LEFT_ALONE_SECONDS
        try:
            with patience.patience(PING_SECONDS), self.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except (DBAPIError, PoolTimeout) as error:
            self._note_hang(error)
            return False
        self._hangs, self._left_alone_until = False, 0.0
        return True

    def _leave_alone(self) -> None:
        if time.monotonic() < self._left_alone_until:
            raise DatabaseUnavailable("the database does not answer")

    def _note_hang(self, error: Exception) -> None:
        if isinstance(getattr(error, "orig", None), NoAnswer):
            self._hangs = True
            self._left_alone_until = max(self._left_alone_until, time.monotonic() + LEFT_ALONE_SECONDS)

    def dispose(self, *, close: bool = True) -> None:
        """Drop all pooled connections; in a forked child with close=False, because they are the parent's."""
        self.engine.dispose(close=close)


def _was_dead(error: BaseException) -> bool:
    """Whether the connection had been lost: another one may do. One that hangs is not asked a second time."""
    return isinstance(error, DBAPIError) and error.connection_invalidated and not isinstance(error.orig, NoAnswer)


def is_unavailable(error: DBAPIError) -> bool:
    """Whether the server is away or cannot commit, as opposed to refusing this statement."""
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "pgcode", None)
    if state is None:
        return isinstance(error.orig, NoAnswer) or type(error.orig).__name__ in {"OperationalError", "InterfaceError"}
    return str(state).startswith(_UNAVAILABLE_STATES)
