"""Who is who, kept by each process: believed for seconds, confirmed for all at once, read again when it changed."""

from __future__ import annotations

import math
import time

import pytest
from sqlalchemy import text

from app.errors import NotFound, UnknownEndpoint

SHORT = 0.05


@pytest.fixture
def tokens(platform, people) -> dict[str, str]:
    """The token of each of the salon's integrations, by provider."""
    with platform.database.transaction(people.salon.id) as session:
        return {row.provider: row.token for row in session.execute(text("SELECT provider, token FROM integrations"))}


@pytest.fixture
def aged(platform, met, monkeypatch):
    """Everybody is known, and nothing of it is fresh any more."""
    for cache in (platform.directory._endpoints, platform.directory._businesses, platform.directory._providers):
        monkeypatch.setattr(cache, "_fresh_seconds", SHORT)
    time.sleep(SHORT)


def change(platform, statement: str, **values: object) -> None:
    with platform.database.transaction(system=True) as session:
        session.execute(text(statement), values)


def look(platform) -> None:
    platform.directory._kept_fresh_at = -math.inf
    platform.directory.keep_fresh()


def test_what_has_not_changed_is_fresh_again_after_one_look_at_all_of_it(platform, people, tokens, aged):
    business = platform.directory._businesses._entries[people.salon.id].value
    assert platform.directory.known_endpoint("vapi", tokens["vapi"]) is None
    look(platform)
    assert platform.directory.known_endpoint("vapi", tokens["vapi"]) is not None
    assert platform.directory.business(people.salon.id) is business


def test_whoever_sends_a_text_need_not_read_again_whose_account_it_is(platform, people, aged):
    endpoint = platform.directory._providers._entries[people.salon.id, "twilio"].value
    look(platform)
    assert platform.directory.integration(people.salon.id, "twilio") is endpoint


def test_an_account_that_was_disabled_elsewhere_sends_nothing_after_the_next_look(platform, people, tokens, met):
    change(platform, "UPDATE integrations SET disabled_at = now() WHERE token = :t", t=tokens["twilio"])
    look(platform)
    with pytest.raises(NotFound):
        platform.directory.integration(people.salon.id, "twilio")


def test_what_another_process_has_changed_is_read_again(platform, people, tokens, met):
    change(platform, "UPDATE integrations SET verification = 'shadow' WHERE token = :t", t=tokens["vapi"])
    change(platform, "UPDATE organizations SET name = 'South Street Salon' WHERE id = :id", id=people.salon.id)
    look(platform)
    assert platform.directory.known_endpoint("vapi", tokens["vapi"]) is None
    assert platform.directory.endpoint("vapi", tokens["vapi"]).verification == "shadow"
    assert platform.directory.business(people.salon.id).name == "South Street Salon"


def test_an_integration_that_was_disabled_elsewhere_is_refused_after_the_next_look(platform, tokens, met):
    change(platform, "UPDATE integrations SET disabled_at = now() WHERE token = :t", t=tokens["vapi"])
    look(platform)
    with pytest.raises(UnknownEndpoint):
        platform.directory.endpoint("vapi", tokens["vapi"])


def test_it_looks_no_more_often_than_every_two_seconds(platform, tokens, aged):
    platform.directory.keep_fresh()
    time.sleep(SHORT)
    platform.directory.keep_fresh()
    assert platform.directory.known_endpoint("vapi", tokens["vapi"]) is None


def test_a_second_warming_opens_only_the_credentials_that_changed(platform, tokens, met, monkeypatch):
    opened: list[str] = []
    open_one = platform.vault.open
    monkeypatch.setattr(platform.directory._vault, "open", lambda *given: opened.append(given[0]) or open_one(*given))
    platform.directory.warm()
    assert opened == []
    change(platform, "UPDATE integrations SET settings = settings WHERE token = :t", t=tokens["twilio"])
    platform.directory.warm()
    assert opened == ["twilio"]
