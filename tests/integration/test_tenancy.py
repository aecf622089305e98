"""Row-level security: nobody's data in anybody else's hands, also not by mistake."""

from __future__ import annotations

import itertools
from uuid import uuid4

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from app.errors import ConfigurationError
from app.models.inbox import NewDelivery, insert_webhooks
from app.services.platform import Platform
from tests.conftest import make_settings, run_as_superuser
from tests.probes import probe

_logins = itertools.count(1)


def tenant_tables(platform: Platform) -> set[str]:
    """Every table with an org_id, and organizations: listed by the database, not by us."""
    with platform.database.engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = 'public' AND c.relkind = 'r' AND (c.relname = 'organizations' OR EXISTS"
                " (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'org_id'))"
            )
        )
        return {row[0] for row in rows}


def event(org_id, key: str = "k1", **values) -> NewDelivery:
    return probe(
        org_id, key, **{"provider": "vapi", "type": "hang", "lane_key": "call:1", "payload": {"a": 1}, **values}
    )


def test_every_tenant_table_is_under_forced_row_level_security_with_a_policy_for_tenants(platform):
    names = tenant_tables(platform)
    assert len(names) >= 15
    with platform.database.engine.connect() as connection:
        for name in names:
            enabled, forced = connection.execute(
                text("SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = :name"), {"name": name}
            ).one()
            assert enabled, name
            assert forced, name
            policies = connection.execute(
                text("SELECT qual FROM pg_policies WHERE tablename = :name AND roles = '{voicedesk_tenant}'"),
                {"name": name},
            ).all()
            assert len(policies) == 1, name
            assert "voicedesk.org_id" in policies[0][0], name


def test_the_login_role_alone_sees_no_table_at_all(platform, people):
    for name in tenant_tables(platform):
        with (
            platform.database.engine.connect() as connection,
            pytest.raises(ProgrammingError, match="permission denied"),
        ):
            connection.execute(text(f"SELECT count(*) FROM {name}"))


def test_without_an_organization_set_a_tenant_sees_no_rows(platform, people):
    with platform.database.intake() as session:
        insert_webhooks(session, [event(people.salon.id)])
    with platform.database.engine.connect() as connection:
        for name in tenant_tables(platform):
            connection.exec_driver_sql("SET LOCAL ROLE voicedesk_tenant")
            column = "id" if name == "organizations" else "org_id"
            assert connection.execute(text(f"SELECT count({column}) FROM {name}")).scalar() == 0, name


def test_north_street_salon_cannot_see_or_write_harbour_dentals_rows(platform, people):
    with platform.database.intake() as session:
        insert_webhooks(session, [event(people.dental.id)])
    with platform.database.transaction(people.salon.id) as session:
        assert session.execute(text("SELECT count(id) FROM webhook_delivery_log")).scalar() == 0
        assert session.execute(text("SELECT name FROM organizations")).scalars().all() == ["North Street Salon"]
    with (
        pytest.raises(ProgrammingError, match="row-level security"),
        platform.database.transaction(people.salon.id) as session,
    ):
        session.execute(
            text("INSERT INTO opt_outs (org_id, address, opted_out, source) VALUES (:org, '+49', true, 'x')"),
            {"org": people.dental.id},
        )


def test_a_foreign_key_to_another_organizations_row_is_refused(platform, people):
    with platform.database.transaction(people.dental.id) as session:
        theirs = session.execute(
            text(
                "INSERT INTO appointments (id, org_id, calendar_id, starts_at, ends_at, status, name)"
                " VALUES (:id, :org, 'c', now(), now() + interval '1 hour', 'booked', 'N') RETURNING id"
            ),
            {"id": uuid4(), "org": people.dental.id},
        ).scalar()
    with pytest.raises(Exception, match="foreign key"), platform.database.transaction(people.salon.id) as session:
        session.execute(
            text(
                "INSERT INTO messages (id, org_id, direction, channel, remote_address, body, status, appointment_id)"
                " VALUES (:id, :org, 'outbound', 'sms', '+49', 'b', 'planned', :theirs)"
            ),
            {"id": uuid4(), "org": people.salon.id, "theirs": theirs},
        )


def test_every_foreign_key_between_tenant_tables_carries_the_organization(platform):
    names = tenant_tables(platform)
    with platform.database.engine.connect() as connection:
        keys = connection.execute(
            text(
                "SELECT conname, conrelid::regclass::text, confrelid::regclass::text,"
                " (SELECT array_agg(attname::text) FROM pg_attribute"
                " WHERE attrelid = conrelid AND attnum = ANY(conkey))"
                " FROM pg_constraint WHERE contype = 'f'"
            )
        ).all()
    between = [key for key in keys if key[1] in names and key[2] in names]
    assert len(between) >= 4
    for name, _, target, columns in between:
        assert "org_id" in columns or target == "organizations", name


def test_two_organizations_may_have_the_same_event_id(platform, people):
    with platform.database.intake() as session:
        stored = insert_webhooks(session, [event(people.salon.id, "same"), event(people.dental.id, "same")])
    assert len(stored) == 2


@pytest.mark.parametrize(
    ("options", "grant", "says"),
    [
        ("LOGIN BYPASSRLS", "WITH INHERIT FALSE", "could bypass row-level security"),
        ("LOGIN SUPERUSER", "WITH INHERIT FALSE", "could bypass row-level security"),
        ("LOGIN", "WITH INHERIT TRUE", "inherits voicedesk_"),
        ("LOGIN", None, "is no member of voicedesk_tenant"),
    ],
)
def test_a_login_role_that_could_bypass_or_that_inherits_stops_the_start(
    postgres, database_urls, template, options, grant, says
):
    login = f"login_{next(_logins)}"
    run_as_superuser(postgres, f"CREATE ROLE {login} {options} PASSWORD 'x'")
    if grant:
        if int(postgres.version.split(".")[0]) < 16:
            grant = ""  # before 16 inheritance is an attribute of the member
        for role in ("tenant", "system", "intake"):
            run_as_superuser(postgres, f"GRANT voicedesk_{role} TO {login} {grant}")
    url = postgres.url(login, "x", database_urls.name)
    platform = Platform(make_settings(database_urls, database_url=url))
    with pytest.raises(ConfigurationError, match=says):
        platform.database.verify_role()
    with pytest.raises(ConfigurationError), platform.database.transaction(system=True):
        pass
    platform.close()
    run_as_superuser(postgres, f"DROP ROLE {login}")


def test_a_setting_of_one_transaction_does_not_reach_the_next_on_the_same_connection(platform, people):
    with platform.database.transaction(people.salon.id) as session:
        session.execute(text("SELECT 1"))
    connection = platform.database.engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT current_setting('voicedesk.org_id', true), current_user")
        setting, user = cursor.fetchone()
    finally:
        connection.close()
    assert not setting
    assert user == "voicedesk_app"
    assert isinstance(connection.dbapi_connection, psycopg2.extensions.connection | type(None))
