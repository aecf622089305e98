"""The README tells the truth about what can be checked: every setting, every command, every folder."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from flask.cli import FlaskGroup
from pydantic_core import PydanticUndefined

from app.cli import (
    alerts,
    booking,
    calendar,
    connecting,
    house,
    keys,
    organizations,
    persons,
    reconcile,
    records,
    simulate,
    spool,
    tail,
    templates,
    usage,
)
from app.config import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = README.partition("## Commands")[2].partition("## Settings")[0]
ROWS = dict(re.findall(r"^\| `([A-Z_]+)` \| (.+?) \|", README, re.MULTILINE))
GROUPS = [
    organizations.org,
    connecting.integration,
    keys.key,
    records.deliveries,
    records.calls,
    records.messages,
    records.appointments,
    simulate.simulate,
    alerts.alerts,
    calendar.calendar,
    spool.spool,
    booking.service,
    booking.staff,
    booking.closure,
    templates.template,
    persons.person,
]
OWN = [tail.tail, usage.usage, reconcile.reconcile, house.tools, house.db_roles, house.new_key]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_table_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    default = field.default if field.default_factory is None else field.get_default(call_default_factory=True) or None
    assert name.upper() in ROWS, f"{name.upper()} is not in the README's table"
    if default is PydanticUndefined:
        expected = "(needed)"
    elif name == "migration_database_url":
        expected = "`DATABASE_URL`"
    else:
        expected = "(none)" if default is None else f"`{default}`"
    assert ROWS[name.upper()] == expected


def test_the_table_has_no_setting_that_does_not_exist() -> None:
    assert {name.lower() for name in ROWS} == set(Settings.model_fields)


def test_every_command_is_named() -> None:
    names = [f"{group.name} {name}" for group in GROUPS for name in group.commands]
    missing = [name for name in [*names, *(command.name for command in OWN)] if not _is_named(str(name))]
    assert missing == []


def test_every_command_that_prints_data_takes_json() -> None:
    commands: list[click.Command] = [*OWN, *(command for group in GROUPS for command in group.commands.values())]
    for command in commands:
        assert any("--json" in param.opts for param in command.params), command.name


def test_no_command_hides_one_of_flasks_own() -> None:
    flasks = set(FlaskGroup().commands) | {"db"}
    assert flasks.isdisjoint({str(command.name) for command in [*GROUPS, *OWN]})


def test_every_place_on_the_map_exists_and_none_is_missing() -> None:
    named = set(re.findall(r"`((?:app|workers|sandbox|migrations|tests|docs)/[\w/]*(?:\.py)?)`", README))
    assert [place for place in named if not (ROOT / place).exists()] == []
    for place in (ROOT / "app").iterdir():
        if place.suffix == ".py" or (place / "__init__.py").exists():
            assert f"app/{place.name}" in README, f"app/{place.name} is not on the map"


def _is_named(command: str) -> bool:
    """`simulate twilio` may stand as `simulate vapi|twilio|...`."""
    first, _, second = command.partition(" ")
    return (
        re.search(rf"`{first} (?:[\w\\|-]*\|)?{second}\b", COMMANDS) is not None if second else f"`{first}" in COMMANDS
    )
