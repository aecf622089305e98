"""Runs migrations as the database's owner, after making sure that the roles they grant to exist.

Owns which URL and which role a migration uses. Roles belong to the cluster and stay when a
migration is taken back; only grants and policies go.
"""

from alembic import context
from flask import current_app
from sqlalchemy import create_engine, pool

from app.database.roles import RoleNames, ensure_roles
from app.models import Base

config = context.config  # how it logs is the product's business (app/observability/logging.py)

settings = current_app.config["SETTINGS"]
roles = RoleNames(settings.database_role_prefix)
config.attributes["roles"] = roles


def run() -> None:
    """Bring the database to the wanted revision, each in a transaction of its own."""
    ensure_roles(settings.owner_database_url, settings.database_url, roles)
    engine = create_engine(
        settings.owner_database_url, poolclass=pool.NullPool, connect_args={"connect_timeout": 5}, hide_parameters=True
    )
    with engine.connect() as connection:
        context.configure(
            connection=connection, target_metadata=Base.metadata, compare_type=True, transaction_per_migration=True
        )
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("migrations need the database: roles and server version decide what is granted")
run()
