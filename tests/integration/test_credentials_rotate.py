"""Rotating CREDENTIALS_KEYS while everything runs: afterwards the old key can go."""

from __future__ import annotations

import json

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text

from app import create_app
from app.models.integrations import replace_sealed
from app.services import connections, credential_rotation
from tests.command_line import CommandLine


@pytest.fixture
def with_keys(settings):
    """Make applications on the same database with other keys."""
    made = []

    def make(*keys: str):
        app = create_app(settings.model_copy(update={"credentials_keys": list(keys)}))
        made.append(app)
        return app

    yield make
    for app in made:
        app.extensions["platform"].close()


def sealed(platform):
    with platform.database.transaction(system=True) as session:
        return dict(tuple(row) for row in session.execute(text("SELECT id, credentials FROM integrations")).all())


def hello(call_id: str) -> dict:
    return {"type": "status-update", "status": "ringing", "call": {"id": call_id}}


def test_after_a_rotation_the_old_key_can_go_and_webhooks_still_verify(settings, people, with_keys):
    (old,) = settings.credentials_keys
    new = Fernet.generate_key().decode()
    done = CommandLine(with_keys(new, old)).data("credentials", "rotate")
    assert done == {
        "rotated": 6,
        "already": 0,
        "changed_meanwhile": 0,
        "unreadable": [],
        "old_keys_needed": False,
    }
    client = with_keys(new).test_client()
    assert people.salon.vapi(client, hello("call-1")).status_code == 200
    assert people.salon.vapi(client, hello("call-2"), secret="wrong").status_code == 403
    assert people.dental.text(client, "+4915112340000", "hello").status_code == 200


def test_a_second_rotation_finds_nothing_to_do_and_changes_nothing(settings, people, with_keys):
    app = with_keys(Fernet.generate_key().decode(), *settings.credentials_keys)
    platform = app.extensions["platform"]
    credential_rotation.rotate(platform, actor="tester")
    before = sealed(platform)
    assert credential_rotation.rotate(platform, actor="tester")["already"] == 6
    assert sealed(platform) == before


def test_what_somebody_sets_during_the_rotation_wins(settings, people, with_keys, platform):
    app = with_keys(Fernet.generate_key().decode(), *settings.credentials_keys)
    rotating = app.extensions["platform"]
    with rotating.database.transaction(system=True) as session:
        row = session.execute(text("SELECT id, credentials FROM integrations WHERE provider = 'vapi' LIMIT 1")).one()
    connections.change(rotating, row.id, {"webhook_secret": "set-meanwhile"}, actor="tester")
    late = rotating.vault.reseal(bytes(row.credentials))
    with rotating.database.transaction(system=True) as session:
        assert not replace_sealed(session, row.id, old=bytes(row.credentials), new=late)
    assert (
        rotating.vault.open("vapi", bytes(sealed(rotating)[row.id])).webhook_secret.get_secret_value()
        == "set-meanwhile"
    )


def test_what_no_key_opens_is_named_and_left_as_it_was(settings, people, with_keys):
    app = with_keys(Fernet.generate_key().decode())
    before = sealed(app.extensions["platform"])
    done = CommandLine(app).run("credentials", "rotate", "--json")
    assert done.exit_code == 1
    assert {str(one) for one in before} == set(json.loads(done.stdout)["unreadable"])
    assert sealed(app.extensions["platform"]) == before
