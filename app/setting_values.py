"""What the value of a setting must look like. Raises ValueError, with what to do and never with the value.

Owns which secrets are examples and what a URL must have, so that what cannot work ends the start by its name
and not deep in a library. Must not know which settings there are.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from sentry_sdk.utils import BadDsn, Dsn

# What people leave in place of a secret: the words of examples, and passwords that everybody tries first.
_EXAMPLE = re.compile(
    r"(?i)<.*>|\.{3,}|x{3,}|(change|replace)[-_ ]?me.*|(xox[a-z]-)?your[-_ ].*|example.*|.*-example"
    r"|(my[-_ ]?)?(secret|password|token|key)|postgres|admin|root|test|todo|default|12345\d*"
)


def is_example(secret: str) -> bool:
    """Whether it was left as it stood in an example."""
    return _EXAMPLE.fullmatch(secret) is not None


def has_default_password(url: str) -> bool:
    """A URL that names a password, and it is the user's name or one that everybody tries."""
    parts = urlsplit(url)
    password = unquote(parts.password or "")
    return bool(password) and (password == parts.username or is_example(password))


def check_postgres(url: str) -> None:
    """A URL that SQLAlchemy can read; its passwords may hold what elsewhere ends the host."""
    if not url.startswith(("postgresql://", "postgres://", "postgresql+psycopg2://")):
        raise ValueError("must begin with postgresql://")
    where = re.split(r"[/?]", url.partition("://")[2].rpartition("@")[2])[0]
    if not re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(:[0-9]+)?", where):
        raise ValueError("must be postgresql://user:password@host:port/name, special characters %-escaped")


def check_redis(url: str) -> None:
    """A URL that the Redis client can read."""
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must begin with redis://, rediss:// or unix://")
    if not _has_number_as_port(url):
        raise ValueError("must be redis://:password@host:port/number, special characters %-escaped")


def check_web(url: str, *, encrypted: bool) -> None:
    """Scheme, host, perhaps a port and a path, and nothing more; with ``encrypted``, https."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with https:// (or http:// on this machine)")
    if not _has_number_as_port(url) or not urlsplit(url).hostname or re.search(r"[?#\s]", url):
        raise ValueError("must be https://host[:port][/path] and nothing more")
    if encrypted and not url.startswith("https://"):
        raise ValueError("must begin with https:// in production: what is sent in plain text anybody can read")


def check_sentry(dsn: str) -> None:
    """A DSN that Sentry's SDK can read."""
    try:
        Dsn(dsn)
    except (BadDsn, ValueError):
        raise ValueError("is not a DSN; Sentry shows it in a project's settings, under Client Keys") from None


def _has_number_as_port(url: str) -> bool:
    try:
        urlsplit(url).port  # noqa: B018 - it is read here
    except ValueError:
        return False
    return True
