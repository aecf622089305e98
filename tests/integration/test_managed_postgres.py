"""PostgreSQL as a service gives it: no superuser, only an owner who may create roles."""

from __future__ import annotations

import itertools

from flask_migrate import upgrade
from sqlalchemy import text

from app import create_app
from tests.command_line import CommandLine
from tests.conftest import Urls, make_settings, run_as_superuser

_numbers = itertools.count(1)


def test_an_owner_who_may_create_roles_makes_everything_that_is_needed(postgres, template):
    name = f"managed_{next(_numbers)}"
    run_as_superuser(postgres, f"CREATE ROLE {name} LOGIN CREATEROLE NOSUPERUSER NOBYPASSRLS PASSWORD 'o'")
    run_as_superuser(postgres, f"CREATE DATABASE {name} OWNER {name}")
    urls = Urls(postgres.url(name, "o", name), postgres.url(f"{name}_login", "made-up", name), name)
    app = create_app(make_settings(urls, database_role_prefix=name))
    platform = app.extensions["platform"]
    done = CommandLine(app).data("db-roles")["done"]
    assert f"created {name}_login" in done
    assert CommandLine(app).data("db-roles") == {"done": []}
    with app.app_context():
        upgrade()
    platform.database.verify_role()
    with platform.database.transaction(system=True) as session:
        assert session.execute(text("SELECT count(*) FROM organizations")).scalar() == 0
        attributes = "SELECT rolsuper, rolbypassrls, rolcreaterole, rolinherit FROM pg_roles WHERE rolname = :name"
        (login,) = session.execute(text(attributes), {"name": f"{name}_login"}).all()
    assert tuple(login) == (False, False, False, False)
    platform.close()
    run_as_superuser(postgres, f"DROP DATABASE {name} WITH (FORCE)")
