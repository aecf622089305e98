"""Quotas of the API: which requests count for whom, and what an answer says of it (Flask-Limiter).

Every route has a limit unless its blueprint is in ``EXEMPT``, with the reason. A request with a valid key
counts for its organization, any other for its address. Where is counted, and what happens without Redis, is
``services/quotas.py``'s; a request is never failed, and never held up, because counting fails.
"""

from __future__ import annotations

import math
import time

from flask import Flask, Response, request
from flask_limiter import Limit, Limiter, RateLimitExceeded, RequestLimit
from limits.storage import MovingWindowSupport, Storage

from app.config import Settings
from app.http.addresses import client_network
from app.http.api import auth
from app.http.problems import problem
from app.observability import metrics
from app.services.platform import Platform
from app.services.quotas import Quotas

EXEMPT = {
    "webhooks": "providers share addresses among all customers, and what they send comes once: nothing is refused",
    "health": "a monitor that is told 429 takes the house for dead",
    "metrics": "asked by one collector, and needed most when much is asked",
}
MINUTES_PER_ADDRESS = 15
ORGANIZATION, ADDRESS = "organization", "address"


class HouseStorage(Storage, MovingWindowSupport):
    """Flask-Limiter's storage, which is the house's own way of counting."""

    STORAGE_SCHEME = ["voicedesk"]

    def __init__(self, uri: str, *, quotas: Quotas, wrap_exceptions: bool = False) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._quotas = quotas

    @property
    def base_exceptions(self) -> type[Exception]:
        """None is raised."""
        return ValueError

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count one more, if that stays within the limit."""
        return self._quotas.acquire(key, limit=limit, window_seconds=expiry, amount=amount)

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest that counts was, and how many count."""
        return self._quotas.used(key, limit=limit, window_seconds=expiry)

    def check(self) -> bool:
        """It always counts, if need be alone."""
        return True

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Fixed windows are not counted here."""
        raise NotImplementedError

    def get(self, key: str) -> int:
        """Fixed windows are not counted here."""
        raise NotImplementedError

    def get_expiry(self, key: str) -> float:
        """Fixed windows are not counted here."""
        raise NotImplementedError

    def clear(self, key: str) -> None:
        """Counts end by themselves."""
        raise NotImplementedError

    def reset(self) -> int | None:
        """Counts end by themselves."""
        raise NotImplementedError


def init_app(app: Flask, settings: Settings, platform: Platform) -> Limiter:
    """Give every route its limits, except those of blueprints that are exempt; call it after they are registered."""
    limiter = Limiter(
        client_network,
        default_limits=_limits(settings),  # type: ignore[arg-type]
        strategy="moving-window",
        storage_uri="voicedesk://",
        storage_options={"quotas": platform.quotas},  # type: ignore[dict-item]
        headers_enabled=False,  # the library tells a time of day; the field's standard is seconds
        swallow_errors=True,
    )
    limiter.init_app(app)
    limiter.request_filter(_is_exempt)  # asked first: exempting blueprints costs each webhook 0.1 ms

    def tell(response: Response) -> Response:
        if _is_exempt():
            return response
        tightest = _tightest(limiter)
        if tightest is not None:
            _write_headers(response, tightest)
        for counted in limiter.current_limits:
            if counted.request_args[-1] == ORGANIZATION:
                _note_usage(platform.quotas, counted)
        return response

    app.after_request(tell)
    app.register_error_handler(RateLimitExceeded, lambda error: _too_many(limiter))
    return limiter


def _is_exempt() -> bool:
    return request.blueprint in EXEMPT or request.method == "OPTIONS"  # a browser's question, not a program's


def _limits(settings: Settings) -> list[Limit]:
    def of_organization() -> str:
        caller = auth.find_caller()
        return f"{(caller and caller.quota_per_hour) or settings.api_quota_per_hour} per hour"

    def organization_key() -> str:
        caller = auth.find_caller()
        return str(caller.org_id) if caller else ""

    def is_not_for_address() -> bool:
        # Without a database it is not known whether a key is valid: then nobody's address pays for it.
        if auth.find_caller() is not None:
            return not settings.api_keyed_count_for_address
        return not auth.is_refused()

    return [
        Limit(
            of_organization,
            key_function=organization_key,
            scope=ORGANIZATION,
            shared=True,
            exempt_when=lambda: auth.find_caller() is None,
            cost=1,
        ),
        Limit(
            f"{settings.api_quota_per_address} per {MINUTES_PER_ADDRESS} minutes",
            key_function=client_network,
            scope=ADDRESS,
            shared=True,
            exempt_when=is_not_for_address,
            cost=1,
        ),
    ]


def _tightest(limiter: Limiter) -> RequestLimit | None:
    """The limit that was exceeded, or else the one of which least is left."""
    counted = limiter.current_limits
    exceeded = [limit for limit in counted if limit.breached]
    return min(exceeded or counted, key=lambda limit: limit.remaining, default=None)


def _note_usage(quotas: Quotas, counted: RequestLimit) -> None:
    caller = auth.find_caller()
    if caller is not None:
        quota = counted.limit.amount
        window = counted.limit.get_expiry()
        quotas.note(caller.org_id, counted.key, used=quota - counted.remaining, quota=quota, window_seconds=window)


def _write_headers(response: Response, limit: RequestLimit) -> None:
    response.headers["RateLimit-Limit"] = str(limit.limit.amount)
    response.headers["RateLimit-Remaining"] = str(max(0, limit.remaining))
    response.headers["RateLimit-Reset"] = str(_seconds_until(limit))


def _seconds_until(limit: RequestLimit) -> int:
    """Seconds until the oldest counted request leaves the window, and a little: then another one is let in."""
    return max(1, math.floor(limit.window.reset_time - time.time()) + 1)


def _too_many(limiter: Limiter) -> Response:
    limit = _tightest(limiter)
    assert limit is not None
    of_organization = limit.request_args[-1] == ORGANIZATION
    metrics.quota_refused("organization" if of_organization else "address")
    whose = "this organization" if of_organization else "this address"
    seconds = _seconds_until(limit)
    response = problem(
        429, "quota_exceeded", f"The quota of {whose} ({limit.limit}) is used up. Come back in {seconds} seconds."
    )
    response.headers["Retry-After"] = str(seconds)
    return response
