"""What organizations use, by the months of their own time zones, and the limits that alert as they are approached."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask

from app.config import Settings
from app.models import Call, Message
from app.services import alert_causes, usage
from app.services.lately import Lately
from app.services.platform import Platform
from tests.command_line import CommandLine
from tests.integration.api import Program
from tests.people import People


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"twilio_text_price_usd": 0.01})


def add_call(platform: Platform, org_id: UUID, at: datetime, *, seconds: int = 90, cost: str = "0.25") -> None:
    with platform.database.transaction(org_id) as session:
        session.add(
            Call(
                org_id=org_id,
                vapi_call_id=str(uuid4()),
                status="ended",
                duration_seconds=Decimal(seconds),
                cost=Decimal(cost),
                created_at=at,
            )
        )


def add_text(platform: Platform, org_id: UUID, at: datetime, *, direction: str, sid: str | None) -> None:
    with platform.database.transaction(org_id) as session:
        session.add(
            Message(
                org_id=org_id,
                direction=direction,
                channel="sms",
                remote_address="+4915155500077",
                body="-",
                status="sent" if direction == "outbound" else "received",
                provider_sid=sid,
                created_at=at,
            )
        )


def of(cli: CommandLine, org_id: Any, month: str) -> dict[str, Any]:
    (row,) = cli.data("usage", "--org", org_id, "--month", month)
    found: dict[str, Any] = row
    return found


def causes(platform: Platform) -> list[alert_causes.Cause]:
    platform.lately = Lately()
    (look,) = [look for look in alert_causes.SHARED if "usage_limit" in look.kinds]
    return list(look.find(platform))


def test_calls_minutes_texts_and_cost_by_provider_are_summed(cli: CommandLine, platform: Platform, people: People):
    noon = datetime(2026, 5, 10, 12, tzinfo=UTC)
    for _ in range(2):
        add_call(platform, people.salon.id, noon)
    add_call(platform, people.dental.id, noon, seconds=600)
    add_text(platform, people.salon.id, noon, direction="outbound", sid="SM" + "1" * 32)
    add_text(platform, people.salon.id, noon, direction="outbound", sid=None)
    add_text(platform, people.salon.id, noon, direction="inbound", sid="SM" + "2" * 32)
    row = of(cli, people.salon.id, "2026-05")
    assert (row["calls"], row["minutes"], row["texts"], row["texts_received"]) == (2, 3.0, 1, 1)
    assert row["cost"] == {"vapi": "0.500000", "twilio": "0.010000", "total": "0.510000"}
    assert {one["name"]: one["calls"] for one in cli.data("usage", "--month", "2026-05")} == {
        "North Street Salon": 2,
        "Harbour Dental": 1,
    }


def test_a_month_is_that_of_the_organizations_time_zone(cli: CommandLine, platform: Platform, people: People):
    cli.data("org", "set", people.dental.id, "--timezone", "America/New_York")
    shortly_after_midnight_in_berlin = datetime(2026, 4, 30, 22, 30, tzinfo=UTC)
    for business in (people.salon, people.dental):
        add_call(platform, business.id, shortly_after_midnight_in_berlin)
    assert (of(cli, people.salon.id, "2026-05")["calls"], of(cli, people.salon.id, "2026-04")["calls"]) == (1, 0)
    assert (of(cli, people.dental.id, "2026-05")["calls"], of(cli, people.dental.id, "2026-04")["calls"]) == (0, 1)


def test_december_ends_with_the_year(cli: CommandLine, platform: Platform, people: People):
    add_call(platform, people.salon.id, datetime(2026, 12, 31, 22, 59, tzinfo=UTC))
    add_call(platform, people.salon.id, datetime(2026, 12, 31, 23, 1, tzinfo=UTC))
    assert of(cli, people.salon.id, "2026-12")["calls"] == 1
    assert of(cli, people.salon.id, "2027-01")["calls"] == 1


@pytest.mark.parametrize("month", ["2026-13", "2026", "may", "2026-5"])
def test_a_month_that_is_none_is_refused(cli: CommandLine, people: People, month: str):
    assert cli.refusal("usage", "--org", people.salon.id, "--month", month)["code"] == "invalid_input"


def test_without_a_price_it_is_said_that_texts_cost_is_unknown(platform: Platform, people: People):
    platform.settings = platform.settings.model_copy(update={"twilio_text_price_usd": None})
    (row,) = [one.row() for one in usage.of_all(platform, org_id=people.salon.id)]
    assert row["cost"] == {"vapi": "0.000000", "twilio": None, "total": "0.000000"}


def test_each_mark_of_a_limit_is_a_cause_of_its_own_until_the_limit_is_raised(
    cli: CommandLine, platform: Platform, people: People
):
    assert causes(platform) == []
    cli.data("org", "limit", people.salon.id, "--minutes", 10, "--cost", 100)
    add_call(platform, people.salon.id, datetime.now(UTC), seconds=300)
    (half,) = causes(platform)
    assert half.facts["percent"] == 50
    assert (half.facts["what"], half.facts["org_id"]) == ("minutes", str(people.salon.id))
    add_call(platform, people.salon.id, datetime.now(UTC), seconds=320)
    found = causes(platform)
    assert [one.facts["percent"] for one in found] == [50, 70, 90, 100]
    assert found[0].key == half.key
    cli.data("org", "limit", people.salon.id, "--minutes", 100)
    assert causes(platform) == []
    assert cli.data("org", "limit", people.salon.id, "--minutes", 0)["limits"] == {"cost": 100.0}


def test_a_limit_below_nothing_and_no_limit_at_all_are_refused(cli: CommandLine, people: People):
    assert cli.refusal("org", "limit", people.salon.id, "--texts", -1)["code"] == "invalid_input"
    assert cli.refusal("org", "limit", people.salon.id)["code"] == "invalid_input"


def test_a_program_sees_its_own_organizations_usage_and_no_other(app: Flask, platform: Platform, people: People):
    noon = datetime(2026, 5, 10, 12, tzinfo=UTC)
    add_call(platform, people.salon.id, noon)
    usage.change_limits(platform, people.salon.id, {"minutes": Decimal(15)}, actor="test")
    salon, dental = (
        Program(app, business.id).get("/usage", month="2026-05") for business in (people.salon, people.dental)
    )
    assert salon.get_json() == {
        "month": "2026-05",
        "timezone": "Europe/Berlin",
        "calls": 1,
        "minutes": 1.5,
        "texts": 0,
        "texts_received": 0,
        "cost": {"vapi": "0.250000", "twilio": "0.000000", "total": "0.250000"},
        "limits": {"minutes": {"most": 15.0, "percent": 10}},
    }
    assert dental.get_json()["calls"] == 0
    assert Program(app, people.salon.id).get("/usage", month="soon").status_code == 422
