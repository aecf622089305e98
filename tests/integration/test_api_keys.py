"""API keys: made, rotated and revoked by hand, and recognised by their hash alone."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from app.errors import KeyRefused
from app.models import ApiKey, OperatorAction
from app.services.api_keys import ApiKeys
from app.services.platform import Platform
from tests.eventually import eventually


@pytest.fixture
def salon(people) -> str:
    return str(people.salon.id)


def trail(platform: Platform) -> list[tuple[str, str]]:
    with platform.database.transaction(system=True) as session:
        return [
            (row.action, row.subject) for row in session.scalars(select(OperatorAction).order_by(OperatorAction.id))
        ]


def is_taken(keys: ApiKeys, key: str) -> bool:
    try:
        return bool(keys.caller(key))
    except KeyRefused:
        return False


def stored(platform: Platform, key: str) -> ApiKey:
    with platform.database.transaction(system=True) as session:
        return session.scalars(select(ApiKey).where(ApiKey.prefix == key[:11])).one()


def test_a_key_is_shown_once_and_kept_as_a_hash(cli, platform, salon):
    made = cli.data("key", "create", salon, "--scope", "read", "--label", "till", "--days", "30")
    assert made["scopes"] == ["read"]
    assert made["label"] == "till"
    assert made["api_key"].startswith(made["prefix"])
    assert len(made["api_key"]) == 35
    (listed,) = cli.data("key", "list", "--org", salon)
    assert made["api_key"] not in str(listed)
    assert made["api_key"] not in str(vars(stored(platform, made["api_key"])))
    assert trail(platform) == [("key.create", made["prefix"])]


def test_the_list_for_people_shows_prefixes_and_no_key(cli, salon):
    made = cli.data("key", "create", salon)
    shown = cli.run("key", "list").stdout
    assert made["prefix"] in shown
    assert made["api_key"] not in shown


def test_a_key_tells_whose_it_is_and_what_it_may_do(cli, platform, salon):
    made = cli.data("key", "create", salon, "--scope", "write")
    caller = platform.api_keys.caller(made["api_key"])
    assert caller.org_id == UUID(salon)
    assert caller.scopes == {"write"}


@pytest.mark.parametrize("key", ["", "vd_", "vd_" + "x" * 32, "vd_" + "x" * 33, "Bearer x", "vd_" + "é" * 32])
def test_a_key_that_does_not_exist_is_refused(platform, key):
    with pytest.raises(KeyRefused):
        platform.api_keys.caller(key)


def test_a_revoked_key_is_refused_at_once_here_and_within_five_seconds_elsewhere(cli, platform, salon):
    made = cli.data("key", "create", salon)
    elsewhere = ApiKeys(platform.database)
    elsewhere.caller(made["api_key"])
    revoked_at = time.monotonic()
    assert cli.data("key", "revoke", made["prefix"])["revoked_at"]
    with pytest.raises(KeyRefused):
        platform.api_keys.caller(made["api_key"])
    eventually(lambda: not is_taken(elsewhere, made["api_key"]))
    assert time.monotonic() - revoked_at < 5
    cli.data("key", "revoke", made["prefix"])
    assert [action for action, _ in trail(platform)] == ["key.create", "key.revoke"]


def test_an_expired_key_is_refused_even_while_it_is_cached(platform, salon, cli):
    made = cli.data("key", "create", salon, "--days", "1")
    assert platform.api_keys.caller(made["api_key"])
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE api_keys SET expires_at = now() + interval '300 milliseconds'"))
    platform.api_keys.forget()
    assert platform.api_keys.caller(made["api_key"])
    eventually(lambda: not is_taken(platform.api_keys, made["api_key"]), seconds=2)


def test_rotation_makes_a_key_that_may_do_the_same_and_ends_the_old_one_after_the_overlap(cli, platform, salon):
    old = cli.data("key", "create", salon, "--scope", "read", "--label", "till")
    new = cli.data("key", "rotate", old["prefix"], "--overlap", "2")
    assert (new["scopes"], new["label"], new["replaces"]) == (["read"], "till", old["prefix"])
    for key in (old, new):
        assert platform.api_keys.caller(key["api_key"]).org_id == UUID(salon)
    ends = stored(platform, old["api_key"]).expires_at
    assert timedelta(hours=1, minutes=59) < ends - datetime.now(UTC) <= timedelta(hours=2)
    assert stored(platform, new["api_key"]).expires_at is None
    assert trail(platform)[-1] == ("key.rotate", old["prefix"])


def test_without_an_overlap_the_old_key_ends_with_the_rotation(cli, platform, salon):
    old = cli.data("key", "create", salon)
    platform.api_keys.caller(old["api_key"])
    new = cli.data("key", "rotate", old["prefix"], "--overlap", "0")
    assert platform.api_keys.caller(new["api_key"])
    with pytest.raises(KeyRefused):
        platform.api_keys.caller(old["api_key"])


def test_a_key_that_has_ended_or_was_rotated_already_is_not_rotated(cli, salon):
    old, gone = cli.data("key", "create", salon), cli.data("key", "create", salon)
    cli.data("key", "rotate", old["prefix"])
    assert "rotated already" in cli.refusal("key", "rotate", old["prefix"])["message"]
    cli.data("key", "revoke", gone["prefix"])
    assert "ended already" in cli.refusal("key", "rotate", gone["prefix"])["message"]
    assert cli.refusal("key", "rotate", "vd_nothing00")["code"] == "not_found"


def test_no_key_is_made_for_an_organization_that_does_not_exist(cli):
    assert cli.refusal("key", "create", str(uuid4()))["code"] == "not_found"


def test_the_last_use_is_written_at_most_once_a_minute(cli, platform, salon):
    key = cli.data("key", "create", salon)["api_key"]
    assert stored(platform, key).last_used_at is None
    platform.api_keys.caller(key)
    first = stored(platform, key).last_used_at
    assert first is not None
    ApiKeys(platform.database).caller(key)
    assert stored(platform, key).last_used_at == first
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE api_keys SET last_used_at = now() - interval '2 minutes'"))
    ApiKeys(platform.database).caller(key)
    assert stored(platform, key).last_used_at > first


def test_an_organization_may_have_quotas_of_its_own(cli, platform, salon):
    key = cli.data("key", "create", salon)["api_key"]
    assert platform.api_keys.caller(key).quota_per_hour is None
    shown = cli.data("org", "set", salon, "--api-quota", "50", "--webhook-quota", "70")
    assert (shown["api_quota"], shown["webhook_quota"]) == (50, 70)
    assert platform.api_keys.caller(key).quota_per_hour == 50
    shown = cli.data("org", "set", salon, "--api-quota", "0")
    assert (shown["api_quota"], shown["webhook_quota"]) == (None, 70)
    assert cli.refusal("org", "set", salon, "--api-quota", "-1")["code"] == "invalid_input"
