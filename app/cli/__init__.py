"""The command line: `flask --app wsgi ...`, the same services as HTTP and the workers.

A table of contents. Commands read what was typed, call one service and give back plain data;
``output.py`` prints it, for people or with ``--json`` for scripts.
"""

from __future__ import annotations

from flask import Flask

from app.cli import (
    alerts,
    booking,
    calendar,
    circuits,
    cleanup,
    connecting,
    credentials,
    house,
    keys,
    monitoring,
    organizations,
    persons,
    readiness,
    reconcile,
    records,
    replaying,
    settings,
    simulate,
    story,
    usage,
)


def register(app: Flask) -> None:
    """Add every command to the application's command line."""
    assert replaying.replay_deliveries.name in records.deliveries.commands  # it has added itself
    for group in (
        organizations.org,
        connecting.integration,
        keys.key,
        booking.service,
        booking.staff,
        booking.closure,
        persons.person,
        records.deliveries,
        records.calls,
        records.messages,
        records.appointments,
        simulate.simulate,
        alerts.alerts,
        calendar.calendar,
        circuits.circuits,
        cleanup.cleanup,
        credentials.credentials,
        settings.settings,
        monitoring.monitoring,
        readiness.readiness,
        story.story,
        reconcile.reconcile,
    ):
        app.cli.add_command(group)
    for command in (usage.usage, house.tools, house.db_roles, house.new_key, house.deliver_isolated):
        app.cli.add_command(command)
