"""The database roles: made once per cluster, checked at every start.

Owns their names, their creation (idempotent, safe when eight databases of a cluster do it at once)
and the check that the login role cannot bypass row-level security. Grants on tables and policies
belong to the migrations.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import psycopg2
from psycopg2 import sql
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from app.errors import ConfigurationError

ATTEMPTS = 40
# Roles are cluster-wide and advisory locks are not, so concurrent makers collide: try again on these.
_COLLISIONS = ("42710", "23505", "XX000", "40001", "40P01")


@dataclass(frozen=True, slots=True)
class RoleNames:
    """The NOLOGIN roles a transaction runs under; several installations of one cluster differ by prefix."""

    prefix: str

    @property
    def tenant(self) -> str:
        """Sees the rows of the organization that is set, and no others."""
        return f"{self.prefix}_tenant"

    @property
    def system(self) -> str:
        """Claims, cleans and configures; may not write what belongs to a tenant's business."""
        return f"{self.prefix}_system"

    @property
    def intake(self) -> str:
        """Adds to the inbox, and reads back only keys."""
        return f"{self.prefix}_intake"

    @property
    def all(self) -> tuple[str, str, str]:
        """Every role of this installation."""
        return (self.tenant, self.system, self.intake)


def ensure_roles(owner_url: str, login_url: str, roles: RoleNames) -> list[str]:
    """Make what is missing of the three roles, the login role and its memberships; return what was done.

    Runs as the owner (CREATEROLE). Safe to call at any time and from many processes at once.
    Raises ConfigurationError when the owner may not create roles and something is missing.
    """
    owner = make_url(owner_url)
    connection = psycopg2.connect(owner.set(drivername="postgresql").render_as_string(hide_password=False))
    connection.autocommit = True
    login = make_url(login_url)
    try:
        with connection.cursor() as cursor:
            for attempt in range(ATTEMPTS):
                try:
                    return _ensure_once(cursor, login.username or owner.username or "", login.password, roles)
                except psycopg2.Error as error:
                    if error.pgcode == "42501":
                        raise ConfigurationError(
                            "MIGRATION_DATABASE_URL: this role may not create roles; "
                            "run `flask --app wsgi db-roles` as one that has CREATEROLE"
                        ) from None
                    if error.pgcode not in _COLLISIONS or attempt == ATTEMPTS - 1:
                        raise
                    time.sleep(random.uniform(0.01, 0.15))  # noqa: S311 - spreading collisions, not a secret
    finally:
        connection.close()
    raise AssertionError("unreachable")


def _ensure_once(cursor: psycopg2.extensions.cursor, login: str, password: str | None, roles: RoleNames) -> list[str]:
    done: list[str] = []

    def run(statement: sql.Composable, what: str) -> None:
        cursor.execute(statement)
        done.append(what)

    cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", ([*roles.all, login],))
    present = {row[0] for row in cursor.fetchall()}
    for role in roles.all:
        if role not in present:
            run(sql.SQL("CREATE ROLE {} NOLOGIN NOINHERIT").format(sql.Identifier(role)), f"created {role}")
    if login not in present:
        run(
            sql.SQL("CREATE ROLE {} LOGIN NOINHERIT PASSWORD {}").format(sql.Identifier(login), sql.Literal(password)),
            f"created {login}",
        )
    # Since 16 the grant itself says that nothing is inherited; before, the login role must be NOINHERIT.
    modern = cursor.connection.server_version >= 160000
    options = sql.SQL(" WITH INHERIT FALSE, SET TRUE" if modern else "")
    cursor.execute("SELECT current_user")
    found = cursor.fetchone()
    owner = found[0] if found else ""
    for member in dict.fromkeys((login, owner)):
        for role in roles.all:
            if not _may_set_role(cursor, member, role, modern=modern):
                statement = sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(member)) + options
                run(statement, f"granted {role} to {member}")
    return done


def _may_set_role(cursor: psycopg2.extensions.cursor, member: str, role: str, *, modern: bool) -> bool:
    """Whether a grant made for SET ROLE exists (not whether it works by other ways, such as being a superuser)."""
    condition = "AND m.set_option AND NOT m.inherit_option" if modern else ""
    cursor.execute(
        "SELECT 1 FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member "
        f"WHERE r.rolname = %s AND u.rolname = %s {condition}",
        (role, member),
    )
    return cursor.fetchone() is not None


def find_role_faults(connection: Connection, roles: RoleNames) -> list[str]:
    """Say in sentences how the current login role could see rows it must not; empty when it cannot.

    Asks what the role *can do*: reach a superuser or BYPASSRLS role, or use one of ours without SET ROLE.
    """
    row = connection.execute(
        text(
            "SELECT current_user,"
            " EXISTS (SELECT FROM pg_roles r WHERE (r.rolsuper OR r.rolbypassrls)"
            "         AND pg_has_role(current_user, r.oid, 'MEMBER')),"
            " (SELECT coalesce(array_agg(r.rolname::text), '{}') FROM pg_roles r WHERE r.rolname = ANY(:ours)"
            "         AND pg_has_role(current_user, r.oid, 'USAGE')),"
            " (SELECT coalesce(array_agg(r.rolname::text), '{}') FROM pg_roles r WHERE r.rolname = ANY(:ours)"
            "         AND pg_has_role(current_user, r.oid, 'MEMBER'))"
        ),
        {"ours": list(roles.all)},
    ).one()
    login, bypasses, inherited, reachable = row
    if bypasses:
        return [f"role {login} could bypass row-level security (superuser or BYPASSRLS, itself or by membership)"]
    faults = [f"role {login} inherits {role}: grant it WITH INHERIT FALSE" for role in inherited]
    missing = [role for role in roles.all if role not in reachable]
    if missing:
        faults.append(f"role {login} is no member of {', '.join(missing)}: run `flask --app wsgi db-roles`")
    return faults
