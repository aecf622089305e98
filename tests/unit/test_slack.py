"""Alerts to Slack, through its own library, against its stand-in."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from app.errors import (
    CircuitOpen,
    CredentialsRefused,
    DeadlineExceeded,
    ProviderRefused,
    ProviderThrottled,
    ProviderUnavailable,
)
from app.integrations.breaker import SLACK, circuits
from app.integrations.slack import SCOPES, SlackAlerts, escape
from app.redis import RedisLink
from sandbox.standins import RemoteWorld

TOKEN, CHANNEL = "xoxb-of-the-tests", "C0123456789"


@pytest.fixture(autouse=True)
def _own_circuits() -> Iterator[None]:
    circuits.connect(RedisLink(None), open_seconds=30)
    yield
    circuits.close()


@pytest.fixture
def slack(world: RemoteWorld) -> SlackAlerts:
    """A bot that is in its channel."""
    world.slack_token(TOKEN)
    world.slack_channel(CHANNEL, "alerts")
    return SlackAlerts(world.slack_url, TOKEN, CHANNEL)


def test_an_alert_is_posted_with_its_blocks(slack: SlackAlerts, world: RemoteWorld) -> None:
    blocks = [{"type": "divider"}]
    slack.post("The queue stands still", blocks=blocks)
    (post,) = world.slack_posts()
    assert (post["channel"], post["text"], post["blocks"]) == (CHANNEL, "The queue stands still", blocks)


def test_text_from_outside_can_neither_call_everybody_nor_link() -> None:
    assert escape("<!channel> & <https://x|y>") == "&lt;!channel&gt; &amp; &lt;https://x|y&gt;"


def test_the_token_can_be_checked(slack: SlackAlerts, world: RemoteWorld) -> None:
    slack.check()
    with pytest.raises(CredentialsRefused) as refusal:
        SlackAlerts(world.slack_url, "xoxb-wrong", CHANNEL).check()
    assert refusal.value.provider_code == "invalid_auth"


def test_the_tokens_scopes_are_told(slack: SlackAlerts, world: RemoteWorld) -> None:
    assert slack.check_scopes() == SCOPES
    world.slack_token(TOKEN, scopes=["chat:write"])
    assert slack.check_scopes() == {"chat:write"}
    world.slack_token(TOKEN, scopes=[])
    assert slack.check_scopes() == set()


def test_a_token_that_may_not_post_names_the_scopes_it_needs(slack: SlackAlerts, world: RemoteWorld) -> None:
    world.slack_token(TOKEN, scopes=["users:read"])
    with pytest.raises(CredentialsRefused) as refusal:
        slack.post("text")
    assert refusal.value.provider_code == "missing_scope"
    assert all(scope in refusal.value.advice for scope in SCOPES)


def test_a_public_channel_needs_no_invitation_with_both_scopes(slack: SlackAlerts, world: RemoteWorld) -> None:
    world.slack_channel(CHANNEL, "alerts", member=False)
    slack.post("text")
    assert len(world.slack_posts()) == 1


def test_the_channel_is_checked_by_a_message_that_says_what_it_is(slack: SlackAlerts, world: RemoteWorld) -> None:
    stamp = slack.check_channel()
    (post,) = world.slack_posts()
    assert post["ts"] == stamp
    assert "test message" in post["text"]


@pytest.mark.parametrize("word", ["channel_not_found", "not_in_channel", "is_archived"])
def test_a_channel_that_cannot_be_posted_to_is_permanent_and_says_what_to_do(
    slack: SlackAlerts, world: RemoteWorld, word: str
) -> None:
    if word == "not_in_channel":
        world.slack_token(TOKEN, scopes=["chat:write"])
        world.slack_channel(CHANNEL, "alerts", member=False)
    elif word == "is_archived":
        world.slack_channel(CHANNEL, "alerts", archived=True)
    else:
        slack = SlackAlerts(world.slack_url, TOKEN, "C999")
    with pytest.raises(ProviderRefused) as refusal:
        slack.post("text")
    assert refusal.value.provider_code == word
    assert refusal.value.advice


def test_too_many_posts_say_when_to_come_back(slack: SlackAlerts, world: RemoteWorld) -> None:
    world.fault("slack", "throttle_429", retry_after=9)
    with pytest.raises(ProviderThrottled) as failure:
        slack.post("text")
    assert failure.value.retry_after == timedelta(seconds=9)


@pytest.mark.parametrize("kind", ["error_500", "error_500_after", "cut_before", "cut_after"])
def test_a_post_that_broke_is_not_repeated_by_the_library(slack: SlackAlerts, world: RemoteWorld, kind: str) -> None:
    world.fault("slack", kind)
    with pytest.raises(ProviderUnavailable) as failure:
        slack.post("text")
    assert failure.value.maybe_done
    assert len(world.requests("slack", "post_message")) == 1


def test_nobody_listening_means_that_nothing_was_posted() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/api/"
        with pytest.raises(ProviderUnavailable) as failure:
            SlackAlerts(url, TOKEN, CHANNEL).post("text")
    assert failure.value.maybe_done is False


def test_a_hanging_slack_costs_the_time_limit(slack: SlackAlerts, world: RemoteWorld) -> None:
    world.fault("slack", "hang")
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        slack.post("text", timeout_seconds=0.3)
    assert time.monotonic() - begun < 2


def test_three_failures_leave_slack_alone_for_a_while(slack: SlackAlerts, world: RemoteWorld) -> None:
    world.fault("slack", "error_500")
    for _ in range(3):
        with pytest.raises(ProviderUnavailable):
            slack.post("text")
    with pytest.raises(CircuitOpen) as refusal:
        slack.post("text")
    assert refusal.value.circuit == SLACK
    assert len(world.requests("slack")) == 3
