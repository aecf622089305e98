"""What an installation needs once: the database's roles and a key for credentials.

Owns nothing of the business; runs before there is any.
"""

from __future__ import annotations

import psycopg2
from cryptography.fernet import Fernet

from app.config import Settings
from app.database.roles import RoleNames, ensure_roles
from app.errors import ConfigurationError


def make_roles(settings: Settings) -> list[str]:
    """Make the database roles that are missing, and their memberships; return what was done.

    Safe to repeat and to run from many processes at once. Raises ConfigurationError.
    """
    roles = RoleNames(settings.database_role_prefix)
    try:
        return ensure_roles(settings.owner_database_url, settings.database_url, roles)
    except psycopg2.Error as error:
        # The server's own words may carry the password of a URL; its code does not.
        raise ConfigurationError(
            "MIGRATION_DATABASE_URL: the roles cannot be made as this user "
            f"({type(error).__name__} {error.pgcode or 'before it connected'})"
        ) from None


def new_key() -> str:
    """A key for CREDENTIALS_KEYS."""
    return Fernet.generate_key().decode()
