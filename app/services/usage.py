"""What organizations use in a month of their own time zone, and the monthly limits that alert as they are approached.

Owns when a month begins and what is counted: calls and minutes as Vapi reported them, with what it charged; texts
that Twilio took, at TWILIO_TEXT_PRICE_USD each, because Twilio says no price when it sends. Refuses nothing: a
limit is for people to hear of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from app.errors import InvalidInput
from app.models.organizations import Organization, list_organizations
from app.models.usage import CallSums, TextSums, list_limits, set_limit, sum_calls, sum_texts
from app.services import audit, organizations

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.services.platform import Platform

KINDS = ("cost", "minutes", "texts")
MARKS = (50, 70, 90, 100)  # per cent of a limit
LARGEST_LIMIT = Decimal(10**9)
LOOK_TIMEOUT_MS = 5_000
MEASURED_FOR_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Usage:
    """One organization's month, such as ``2026-11``. Costs are in US dollars; None: what texts cost is not known."""

    org_id: UUID
    name: str
    timezone: str
    month: str
    calls: int
    minutes: Decimal
    texts: int
    texts_received: int
    vapi_cost: Decimal
    twilio_cost: Decimal | None
    limits: dict[str, Decimal]

    @property
    def cost(self) -> Decimal:
        """All that is known of, in US dollars."""
        return self.vapi_cost + (self.twilio_cost or 0)

    def percent(self, kind: str) -> int:
        """How much of a limit is used."""
        used = {"cost": self.cost, "minutes": self.minutes, "texts": Decimal(self.texts)}[kind]
        return int(100 * used / self.limits[kind])

    def row(self) -> dict[str, Any]:
        """As plain data, money as text with six places, so that nothing is rounded on the way."""
        return {
            "org_id": str(self.org_id),
            "name": self.name,
            "month": self.month,
            "timezone": self.timezone,
            "calls": self.calls,
            "minutes": float(self.minutes),
            "texts": self.texts,
            "texts_received": self.texts_received,
            "cost": {"vapi": _money(self.vapi_cost), "twilio": _money(self.twilio_cost), "total": _money(self.cost)},
            "limits": {
                kind: {"most": float(most), "percent": self.percent(kind)} for kind, most in self.limits.items()
            },
        }


def of_all(platform: Platform, *, month: str | None = None, org_id: UUID | None = None) -> list[Usage]:
    """Everybody's month (this one, if none is named), or one organization's. Raises InvalidInput, NotFound."""
    with platform.database.transaction(system=True) as session:
        found = [organizations.get(session, org_id)] if org_id else list_organizations(session)
        return _measure(platform, session, found, month)


def of_tenant(platform: Platform, org_id: UUID, *, month: str | None = None) -> Usage:
    """One organization's month, read as itself. Raises InvalidInput, NotFound."""
    with platform.database.transaction(org_id) as session:
        return _measure(platform, session, [organizations.get(session, org_id)], month)[0]


def change_limits(platform: Platform, org_id: UUID, given: dict[str, Decimal], *, actor: str) -> dict[str, Any]:
    """Set limits of a month by kind (``cost`` in US dollars, ``minutes``, ``texts``); 0 takes one away.

    Raises InvalidInput, NotFound.
    """
    for kind, most in given.items():
        if not 0 <= most <= LARGEST_LIMIT:
            raise InvalidInput(f"{kind}: 0 to {LARGEST_LIMIT}")
    if not given:
        raise InvalidInput("nothing to set was given")
    with platform.database.transaction(system=True) as session:
        organizations.get(session, org_id)
        for kind, most in given.items():
            set_limit(session, org_id, kind, most or None)
        audit.note(session, org_id, actor=actor, action="usage.limit", subject=str(org_id), fields=sorted(given))
        limits = list_limits(session, org_id).get(org_id, {})
    return {"org_id": str(org_id), "limits": {kind: float(most) for kind, most in limits.items()}}


def near_limits(platform: Platform) -> list[Usage]:
    """This month of all that have a limit, as it stood at most a minute ago. Raises DatabaseUnavailable."""
    return platform.lately.ask("usage", MEASURED_FOR_SECONDS, lambda: _with_limits(platform))


def _with_limits(platform: Platform) -> list[Usage]:
    with platform.database.transaction(system=True, statement_timeout_ms=LOOK_TIMEOUT_MS) as session:
        limited = list_limits(session)
        if not limited:
            return []
        return _measure(platform, session, [org for org in list_organizations(session) if org.id in limited], None)


def _measure(platform: Platform, session: Session, orgs: Iterable[Organization], month: str | None) -> list[Usage]:
    """By time zone, because a month begins elsewhere at another moment."""
    orgs = list(orgs)
    by_zone: dict[str, list[Organization]] = {}
    for org in orgs:
        by_zone.setdefault(org.timezone, []).append(org)
    limits = list_limits(session)
    found: dict[UUID, Usage] = {}
    for zone, there in by_zone.items():
        named, start, end = bounds(month, ZoneInfo(zone))
        ids = [org.id for org in there]
        calls = sum_calls(session, ids, start=start, end=end)
        texts = sum_texts(session, ids, start=start, end=end)
        for org in there:
            found[org.id] = _usage(platform, org, named, calls.get(org.id), texts.get(org.id), limits.get(org.id, {}))
    return [found[org.id] for org in orgs]


def _usage(
    platform: Platform,
    org: Organization,
    month: str,
    calls: CallSums | None,
    texts: TextSums | None,
    limits: dict[str, Decimal],
) -> Usage:
    calls, texts = calls or CallSums(), texts or TextSums()
    price = platform.settings.twilio_text_price_usd
    return Usage(
        org_id=org.id,
        name=org.name,
        timezone=org.timezone,
        month=month,
        calls=calls.calls,
        minutes=(calls.seconds / 60).quantize(Decimal("0.1")),
        texts=texts.sent,
        texts_received=texts.received,
        vapi_cost=calls.cost,
        twilio_cost=None if price is None else Decimal(str(price)) * texts.sent,
        limits=limits,
    )


def bounds(month: str | None, zone: ZoneInfo) -> tuple[str, datetime, datetime]:
    """The month (``YYYY-MM``; without one this one, there), and from when until when it lasts. Raises InvalidInput."""
    month = month or datetime.now(zone).strftime("%Y-%m")
    if not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", month):
        raise InvalidInput("month: a year and a month are needed, such as 2026-11")
    year, number = int(month[:4]), int(month[5:])
    start = datetime(year, number, 1, tzinfo=zone)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=zone)
    return month, start.astimezone(UTC), end.astimezone(UTC)


def _money(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:.6f}"
