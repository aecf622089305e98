"""Settings: every variable, typed, checked when the process starts; secrets also from NAME_FILE.

Owns the reading of the environment: no other module reads ``os.environ``. Never prints a value,
because half of them are secrets.
"""

from __future__ import annotations

import os
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from cryptography.fernet import Fernet
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app import setting_values
from app.errors import ConfigurationError

_FEWEST_BYTES = 10  # a random key of 32 bytes has about 30 different ones, one typed by hand fewer than these


class Environment(StrEnum):
    """Where this process runs; anything but these stops the start."""

    DEVELOPMENT = "development"
    TEST = "test"
    PRODUCTION = "production"


class Settings(BaseSettings):
    """Everything that can be set from outside, one field a variable (upper case, no prefix)."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, case_sensitive=False)

    environment: Environment = Field(Environment.DEVELOPMENT, description="development, test or production")
    database_url: str = Field(description="PostgreSQL of the login role, postgresql://user:password@host/name")
    migration_database_url: str | None = Field(
        None, description="the same database as its owner; only `flask db` uses it (default: DATABASE_URL)"
    )
    database_role_prefix: str = Field(
        "voicedesk", pattern=r"^[a-z][a-z0-9_]{0,30}$", description="prefix of the NOLOGIN roles"
    )
    database_pool_size: int = Field(20, ge=2, le=200, description="most connections a process holds")
    redis_url: str | None = Field(None, description="Redis; without it this process delivers by itself")
    public_base_url: str = Field(
        "http://127.0.0.1:8000", description="the URL under which providers reach the webhooks; signatures cover it"
    )
    credentials_keys: Annotated[list[str], NoDecode] = Field(
        description="Fernet keys for stored credentials, comma-separated, the newest first"
    )
    trusted_proxies: int = Field(0, ge=0, le=5, description="how many proxies in front may say who the client is")
    max_webhook_bytes: int = Field(5_000_000, ge=10_000, description="a larger webhook is refused with 413")

    forward_private_targets: bool = Field(
        False, description="events may be forwarded into this network; never in production"
    )
    spool_dir: str = Field(
        "spool",
        description="a folder on a disk of this host that lasts, where webhooks wait while the database is away",
    )
    spool_max_bytes: int = Field(1_000_000_000, ge=0, description="the spool grows no larger than this; 0: no spool")

    vapi_private_key: str | None = Field(None, description="for calls to Vapi's API")
    vapi_api_base_url: str = Field("https://api.vapi.ai", description="where Vapi's API is")
    twilio_api_base_url: str = Field("https://api.twilio.com", description="where Twilio's API is")
    google_calendar_api_base_url: str = Field(
        "https://www.googleapis.com/calendar/v3/", description="where Google Calendar's API is, version included"
    )
    google_client_id: str | None = Field(None, description="the OAuth client that asks people for their calendar")
    google_client_secret: str | None = Field(None, description="its secret")
    slack_bot_token: str | None = Field(None, description="for alerts to Slack; without it they go to the log")
    slack_alert_channel: str | None = Field(None, description="the Slack channel of the alerts")
    slack_api_base_url: str = Field("https://slack.com/api/", description="where Slack's API is")
    sentry_dsn: str | None = Field(None, description="for error reports to Sentry")
    release: str | None = Field(None, description="the version that runs, shown with every error report")

    watch_seconds: float = Field(10, gt=0, description="how often it is looked whether anything is wrong")
    canary_seconds: float = Field(60, gt=0, description="how often an event of our own is sent the whole way")
    alert_window_seconds: float = Field(300, ge=0, description="a cause that comes and goes within it is told once")
    error_rate_limit: int = Field(20, ge=1, description="more errors than this in five minutes raise an alert")
    oldest_waiting_limit_seconds: float = Field(60, gt=0, description="an event due for longer raises an alert")
    metrics_dir: str | None = Field(
        None, description="a folder shared by all processes of this machine, where they count for /metrics"
    )
    metrics_token: str | None = Field(None, description="when set, /metrics wants it as a bearer token")

    twilio_text_price_usd: float | None = Field(
        None, ge=0, description="what a text costs about, in US dollars, for `usage`; Twilio does not say when it sends"
    )
    api_quota_per_hour: int = Field(1000, ge=1, description="API requests an hour of one organization")
    api_quota_per_address: int = Field(100, ge=1, description="API requests in 15 minutes of one address without a key")
    api_keyed_count_for_address: bool = Field(False, description="requests with a valid key count for the address too")
    webhook_quota_per_hour: int = Field(
        10_000, ge=1, description="webhooks an hour of one organization; those beyond it are last in turn, never lost"
    )
    webhook_failures_per_minute: int = Field(
        20, ge=1, description="failed verifications of one address and token, after which refusing is cheaper"
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        default_factory=list, description="origins allowed to call the API from a browser, comma-separated"
    )
    reconcile_seconds: float = Field(
        900, ge=60, description="how often it is compared with the providers what never arrived"
    )
    reconcile_window_hours: float = Field(
        24, gt=0, le=168, description="what is older is not compared with the providers, and never filled in"
    )
    keep_keys_hours: float = Field(24, ge=1, description="a dedup key goes this long after its delivery is finished")
    keep_deliveries_days: float = Field(
        7, gt=0, description="finished deliveries, and their attempts, are kept this long"
    )
    keep_dead_days: float = Field(30, gt=0, description="dead deliveries are kept this long")
    twilio_texts_per_second: float = Field(
        30, gt=0, le=1000, description="texts a second of one sender; those beyond it wait for their turn"
    )
    google_changes_per_second: float = Field(
        3, gt=0, le=1000, description="changes a second of one calendar, each up to three requests; callers come first"
    )
    circuit_failures: int = Field(3, ge=1, le=100, description="this many failures in a row open a circuit")

    tool_deadline_seconds: float = Field(5.0, ge=0.5, le=19, description="a caller waits this long for all tool calls")
    assistant_deadline_seconds: float = Field(4.0, ge=0.5, le=7, description="the same for assistant-request")
    worker_threads: int = Field(16, ge=1, le=64, description="deliveries a worker handles side by side")
    fallback_threads: int = Field(4, ge=1, le=16, description="deliveries a web process handles when Redis is away")
    lane_hold_limit_seconds: float = Field(
        600, ge=1, description="how long a failed event may hold up those behind it in its lane"
    )
    lease_seconds: float = Field(
        30, ge=1, description="how long a claimed delivery is nobody else's; what a killed process costs"
    )
    handler_limit_seconds: float = Field(
        150,
        ge=1,
        le=200,
        description="a handler may take this long; then its process ends and is started again, and it runs alone",
    )
    retry_base_seconds: float = Field(
        5, gt=0, description="the first retry's delay; the whole schedule scales with it (tests use less)"
    )
    unknown_lookup_seconds: float = Field(
        60,
        gt=0,
        description="how long to wait (at most) before asking Twilio for a text whose fate is unknown; and between",
    )
    status_check_seconds: float = Field(
        60, gt=0, description="how long a sent text may be without a status callback before Twilio is asked"
    )
    circuit_open_seconds: float = Field(30, gt=0, description="how long an open circuit stays open before one probe")
    log_format: str = Field("auto", pattern="^(auto|json|console)$", description="auto: json unless a terminal")

    @field_validator("credentials_keys", "cors_origins", mode="before")
    @classmethod
    def _split_list(cls, value: Any) -> Any:
        return [key.strip() for key in value.split(",") if key.strip()] if isinstance(value, str) else value

    @field_validator("credentials_keys")
    @classmethod
    def _check_keys(cls, keys: list[str], info: ValidationInfo) -> list[str]:
        if not keys:
            raise ValueError("at least one Fernet key is needed; `flask --app wsgi new-key` makes one")
        for number, key in enumerate(keys, 1):
            try:
                Fernet(key)
            except ValueError:
                raise ValueError(f"key number {number} is not a Fernet key (32 bytes, url-safe base64)") from None
            if _in_production(info) and len(set(urlsafe_b64decode(key))) < _FEWEST_BYTES:
                raise ValueError(f"key number {number} is an example; `flask --app wsgi new-key` makes a real one")
        return keys

    @field_validator("database_url", "migration_database_url")
    @classmethod
    def _check_postgres(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None:
            return None
        setting_values.check_postgres(url)
        if _in_production(info) and setting_values.has_default_password(url):
            raise ValueError("has a default password; give the role one of its own (ALTER ROLE ... PASSWORD)")
        return "postgresql+psycopg2://" + url.split("://", 1)[1]

    @field_validator("keep_deliveries_days", "keep_dead_days")
    @classmethod
    def _check_keeping(cls, days: float, info: ValidationInfo) -> float:
        if days * 24 < info.data.get("keep_keys_hours", 0):
            raise ValueError("must not be shorter than KEEP_KEYS_HOURS: a key goes with its delivery at the latest")
        return days

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: list[str]) -> list[str]:
        for number, origin in enumerate(origins, 1):
            if not re.fullmatch(r"https?://[^/?#*\s]+", origin):
                raise ValueError(f"origin number {number} is not scheme://host[:port] (a wildcard is not accepted)")
        return origins

    @field_validator("redis_url")
    @classmethod
    def _check_redis(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None:
            return None
        setting_values.check_redis(url)
        if _in_production(info) and setting_values.has_default_password(url):
            raise ValueError("has a default password; set another with requirepass or an ACL")
        return url

    @field_validator("vapi_private_key", "google_client_secret", "slack_bot_token", "sentry_dsn", "metrics_token")
    @classmethod
    def _check_secret(cls, secret: str | None, info: ValidationInfo) -> str | None:
        if secret is not None and _in_production(info) and setting_values.is_example(secret):
            raise ValueError("is an example's value; set the real one, or leave it out")
        return secret

    @field_validator("forward_private_targets")
    @classmethod
    def _check_targets(cls, allowed: bool, info: ValidationInfo) -> bool:
        if allowed and _in_production(info):
            raise ValueError("must be false in production: an organization could reach this network through it")
        return allowed

    @field_validator("sentry_dsn")
    @classmethod
    def _check_sentry(cls, dsn: str | None) -> str | None:
        if dsn is not None:
            setting_values.check_sentry(dsn)
        return dsn

    @field_validator("public_base_url", "vapi_api_base_url", "twilio_api_base_url")
    @classmethod
    def _check_http(cls, url: str, info: ValidationInfo) -> str:
        setting_values.check_web(url, encrypted=_in_production(info))
        return url.rstrip("/")

    @field_validator("google_calendar_api_base_url", "slack_api_base_url")
    @classmethod
    def _check_http_folder(cls, url: str, info: ValidationInfo) -> str:
        setting_values.check_web(url, encrypted=_in_production(info))
        return url.rstrip("/") + "/"

    @property
    def owner_database_url(self) -> str:
        """The URL migrations run under."""
        return self.migration_database_url or self.database_url


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one variable, and what to do about it; never its value."""

    variable: str
    problem: str


def load_settings(**overrides: Any) -> Settings:
    """Read the environment; raise ConfigurationError naming every variable that is wrong, and why."""
    settings, faults = read_settings(**overrides)
    if settings is None or faults:
        lines = [f"{fault.variable}: {fault.problem}" for fault in faults]
        raise ConfigurationError("settings are wrong:\n  " + "\n  ".join(lines))
    return settings


def read_settings(**overrides: Any) -> tuple[Settings | None, list[Fault]]:
    """The settings, if each variable by itself can be read, and everything that is wrong, all at once."""
    from_files, faults = _secrets_from_files()
    given = {**from_files, **overrides}
    faulty_files = {fault.variable.removesuffix("_FILE").lower() for fault in faults}
    settings = None
    try:
        settings = Settings(**given)
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False):
            name = str(fault["loc"][0])
            if not (fault["type"] == "missing" and name in faulty_files):
                faults.append(Fault(name.upper(), _reason(fault["type"], fault["msg"])))
    environment = settings.environment if settings else given.get("environment") or os.environ.get("ENVIRONMENT")
    debug = os.environ.get("FLASK_DEBUG", "")
    if environment == Environment.PRODUCTION and debug.lower() not in ("", "0", "false", "no"):
        faults.append(Fault("FLASK_DEBUG", "shows code and variables to whoever meets an error; unset it"))
    return settings, faults


def _in_production(info: ValidationInfo) -> bool:
    return info.data.get("environment") is Environment.PRODUCTION


def _reason(kind: str, message: str) -> str:
    return "is not set" if kind == "missing" else message.removeprefix("Value error, ")


def _secrets_from_files() -> tuple[dict[str, str], list[Fault]]:
    """NAME_FILE holds the path of a file whose content is NAME's value (Docker and Kubernetes secrets)."""
    found: dict[str, str] = {}
    faults: list[Fault] = []
    for name in Settings.model_fields:
        variable = f"{name.upper()}_FILE"
        path = os.environ.get(variable)
        if not path or os.environ.get(name.upper()):
            continue
        try:
            found[name] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            faults.append(Fault(variable, f"cannot be read ({reason}); check its path and who may read it"))
    return found, faults


def metrics_folder() -> str | None:
    """METRICS_DIR by itself, which is needed before there are settings: while modules are imported.

    A file that cannot be read is told of when they are loaded.
    """
    named, file = os.environ.get("METRICS_DIR"), os.environ.get("METRICS_DIR_FILE")
    if named or not file:
        return named or None
    try:
        return Path(file).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment that gives a child process the same settings."""
    environment = dict(os.environ)
    for name in Settings.model_fields:
        value = getattr(settings, name)
        environment.pop(name.upper(), None)
        if value is not None:
            environment[name.upper()] = ",".join(value) if isinstance(value, list) else str(value)
    return environment
