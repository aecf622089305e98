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
    forward,
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
    spool,
    story,
    tail,
    templates,
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
        templates.template,
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
        forward.forward,
        settings.settings,
        spool.spool,
        monitoring.monitoring,
        readiness.readiness,
        story.story,
        reconcile.reconcile,
    ):
        app.cli.add_command(group)
    for command in (tail.tail, usage.usage, house.tools, house.db_roles, house.new_key, house.deliver_isolated):
        app.cli.add_command(command)


def without_platform() -> Flask:
    """An application that knows only the commands which tell why wrong settings keep the real one from starting."""
    app = Flask("voicedesk", static_folder=None)
    app.cli.add_command(settings.settings)
    app.cli.add_command(readiness.readiness)
    return app


def goes_on_without_settings(words: list[str]) -> bool:
    """Whether these words of a command line end in one of those commands."""
    command = [word for word in words if not word.startswith("-")]
    return command[-2:] == ["settings", "check"] or command[-1:] == ["readiness"]
