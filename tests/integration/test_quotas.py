"""Quotas of the API: exact, shared by processes, and never a reason to fail or to hold up a request."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from app import create_app
from app.config import environment_of
from app.models import Organization
from app.redis import FAST_TIMEOUT_SECONDS, RedisLink
from app.services import quotas
from app.services.quotas import MovingWindows, Quotas
from tests.command_line import CommandLine
from tests.eventually import eventually
from tests.integration.api import Program

ROOT = Path(__file__).resolve().parents[2]
ASKING = """
import sys
from app.services import quotas
quotas.FAST_TIMEOUT_SECONDS = 5  # exactness is asked for here; a busy machine may take its time
from collections import Counter
from app import create_app
app = create_app()
client = app.test_client()
client.get("/health")
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
key, times = sys.argv[1:]
said = Counter(client.get("/api/v1/calls", headers={"X-Api-Key": key}).status_code for _ in range(int(times)))
sys.stdout.write(f"{said[200]} {said[429]}\\n"); sys.stdout.flush()
app.extensions["platform"].close()
"""


@pytest.fixture
def settings(settings, own_valkey, monkeypatch):
    monkeypatch.setattr(quotas, "FAST_TIMEOUT_SECONDS", 2)  # on a busy machine 50 ms can pass without a fault
    return settings.model_copy(
        update={"redis_url": own_valkey.url, "api_quota_per_hour": 10, "api_quota_per_address": 5}
    )


@pytest.fixture
def cli(app) -> CommandLine:
    return CommandLine(app)


@pytest.fixture
def salon(app, people) -> Program:
    return Program(app, people.salon.id)


def statuses(program: Program, times: int) -> Counter[int]:
    return Counter(program.get("/calls").status_code for _ in range(times))


def unknown(client, *, address: str = "198.51.100.7", **headers: str):
    return client.get("/api/v1/calls", headers=headers, environ_base={"REMOTE_ADDR": address})


def test_the_last_request_of_the_quota_is_answered_and_the_next_one_is_not(salon):
    answers = [salon.get("/calls") for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert [answer.headers["RateLimit-Remaining"] for answer in answers] == [*map(str, range(9, -1, -1)), "0"]
    assert {answer.headers["RateLimit-Limit"] for answer in answers} == {"10"}
    assert all(3590 <= int(answer.headers["RateLimit-Reset"]) <= 3600 for answer in answers)
    refusal = answers[-1]
    assert refusal.content_type == "application/problem+json"
    assert refusal.get_json()["code"] == "quota_exceeded"
    assert refusal.headers["Retry-After"] == refusal.headers["RateLimit-Reset"]
    assert not any("Retry-After" in answer.headers for answer in answers[:-1])


def test_after_retry_after_there_is_room_again(app, platform, salon):
    counting = platform.quotas
    assert all(counting.acquire("short", limit=3, window_seconds=1) for _ in range(3))
    assert not counting.acquire("short", limit=3, window_seconds=1)
    eventually(lambda: counting.acquire("short", limit=3, window_seconds=1), seconds=3)


def test_two_processes_and_one_redis_let_exactly_the_quota_through(app, settings, people):
    program = Program(app, people.salon.id)
    command = [sys.executable, "-c", ASKING, program.key, "10"]
    both = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment_of(settings), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
        for process in both:
            process.stdin.write("go\n")
            process.stdin.flush()
        answered = [tuple(map(int, process.communicate(timeout=60)[0].split())) for process in both]
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert sum(good for good, _ in answered) == 10
    assert sum(refused for _, refused in answered) == 10
    assert program.get("/calls").status_code == 429


def test_one_organizations_requests_cost_another_nothing(app, salon, people):
    assert statuses(salon, 12) == {200: 10, 429: 2}
    assert Program(app, people.dental.id).get("/calls").status_code == 200


def test_all_keys_of_an_organization_share_its_quota(app, salon, people):
    other = Program(app, people.salon.id)
    assert statuses(salon, 6) + statuses(other, 6) == {200: 10, 429: 2}


def test_an_organizations_own_quota_stands_above_the_settings(app, platform, people):
    with platform.database.transaction(system=True) as session:
        session.get(Organization, people.salon.id).api_quota_per_hour = 3
    program = Program(app, people.salon.id)
    assert statuses(program, 5) == {200: 3, 429: 2}


def test_after_a_restart_of_redis_with_its_data_the_counts_go_on(salon, platform, own_valkey):
    assert statuses(salon, 7) == {200: 7}
    own_valkey.restart()
    eventually(lambda: not platform.quotas.cannot_count())
    assert statuses(salon, 5) == {200: 3, 429: 2}


def test_after_a_restart_of_redis_without_its_data_the_counts_begin_anew(salon, platform, own_valkey):
    assert statuses(salon, 12) == {200: 10, 429: 2}
    own_valkey.restart(empty=True)
    eventually(lambda: not platform.quotas.cannot_count())
    assert statuses(salon, 12) == {200: 10, 429: 2}


def test_while_redis_is_away_each_process_counts_alone_and_says_so(app, settings, platform, people, own_valkey):
    other = create_app(settings)
    here, there = Program(app, people.salon.id), Program(other, people.salon.id)
    assert not platform.quotas.cannot_count()
    own_valkey.kill()
    assert statuses(here, 12) == {200: 10, 429: 2}
    assert statuses(there, 12) == {200: 10, 429: 2}
    assert platform.quotas.cannot_count()
    own_valkey.restart()
    eventually(lambda: not platform.quotas.cannot_count())
    assert here.get("/calls").headers["RateLimit-Limit"] == "10"
    other.extensions["platform"].close()


def test_a_hanging_redis_holds_no_request_and_fails_none(settings, people, own_valkey, monkeypatch):
    monkeypatch.setattr(quotas, "FAST_TIMEOUT_SECONDS", FAST_TIMEOUT_SECONDS)
    app = create_app(settings)
    salon = Program(app, people.salon.id)
    salon.get("/calls")
    own_valkey.freeze()
    try:
        took = []
        for _ in range(9):
            began = time.monotonic()
            assert salon.get("/calls").status_code == 200
            took.append(time.monotonic() - began)
    finally:
        own_valkey.thaw()
    assert max(took) < 0.5
    assert sorted(took)[4] < 0.05
    app.extensions["platform"].close()


def test_a_redis_that_refuses_to_count_fails_no_request(salon, platform, own_valkey):
    salon.get("/calls")
    client = RedisLink(own_valkey.url)
    client.use(lambda redis: [redis.set(key, "not a window") for key in redis.keys("voicedesk:quota:moving*")])
    assert salon.get("/calls").status_code == 200


def test_without_a_redis_at_all_quotas_hold_in_this_process(settings, people):
    alone = create_app(settings.model_copy(update={"redis_url": None}))
    assert statuses(Program(alone, people.salon.id), 12) == {200: 10, 429: 2}
    assert not alone.extensions["platform"].quotas.cannot_count()
    alone.extensions["platform"].close()


def test_without_a_valid_key_requests_count_for_their_address(client, salon):
    assert [unknown(client).status_code for _ in range(6)] == [401] * 5 + [429]
    assert unknown(client, **{"X-Api-Key": "vd_" + "x" * 32}).status_code == 429
    assert unknown(client, address="198.51.100.8").status_code == 401
    assert unknown(client, **salon.headers).status_code == 200


def test_with_a_valid_key_they_count_for_their_organization_only(client, salon):
    assert Counter(unknown(client, **salon.headers).status_code for _ in range(8)) == {200: 8}
    assert unknown(client).status_code == 401
    assert unknown(client).headers["RateLimit-Remaining"] == "3"


def test_a_setting_makes_them_count_for_their_address_too(settings, people):
    counting = create_app(settings.model_copy(update={"api_keyed_count_for_address": True}))
    assert statuses(Program(counting, people.salon.id), 7) == {200: 5, 429: 2}
    counting.extensions["platform"].close()


def test_a_key_without_the_scope_counts_for_its_organization(app, people):
    program = Program(app, people.salon.id, scopes=("write",))
    assert statuses(program, 12) == {403: 10, 429: 2}


def test_a_network_of_ipv6_addresses_is_one_address(client):
    answers = [unknown(client, address=f"2001:db8:1:2::{number}").status_code for number in range(1, 7)]
    assert answers == [401] * 5 + [429]
    assert unknown(client, address="2001:db8:1:3::1").status_code == 401
    mapped = [unknown(client, address=address).status_code for address in ["::ffff:203.0.113.1", "203.0.113.1"] * 3]
    assert mapped == [401] * 5 + [429]


@pytest.mark.parametrize(("proxies", "forwarded"), [(0, "10.9.8.{}"), (1, "10.9.8.{}, 198.51.100.7")])
def test_a_forged_forwarded_for_is_no_way_around(settings, proxies, forwarded):
    behind = create_app(settings.model_copy(update={"trusted_proxies": proxies}))
    client = behind.test_client()
    answers = [
        unknown(client, address="192.0.2.1", **{"X-Forwarded-For": forwarded.format(number)}).status_code
        for number in range(6)
    ]
    assert answers == [401] * 5 + [429]
    behind.extensions["platform"].close()


def test_behind_a_proxy_each_client_has_a_count_of_its_own(settings):
    behind = create_app(settings.model_copy(update={"trusted_proxies": 1}))
    client = behind.test_client()
    answers = {
        unknown(client, address="192.0.2.1", **{"X-Forwarded-For": f"10.9.8.{number}"}).status_code
        for number in range(8)
    }
    assert answers == {401}
    nonsense = [
        unknown(client, address="192.0.2.1", **{"X-Forwarded-For": f"nonsense {number}"}).status_code
        for number in range(6)
    ]
    assert nonsense == [401] * 5 + [429]
    behind.extensions["platform"].close()


def test_health_and_webhooks_have_no_quota(client, people):
    for path in ("/health", "/health/ready"):
        answers = [unknown_path(client, path) for _ in range(8)]
        assert {answer.status_code for answer in answers} == {200}
        assert not any("RateLimit-Limit" in answer.headers for answer in answers)
    message = {"type": "hang", "call": {"id": "c"}}
    assert {people.salon.vapi(client, message).status_code for _ in range(12)} == {200}


def unknown_path(client, path: str):
    return client.get(path, environ_base={"REMOTE_ADDR": "198.51.100.7"})


def test_who_is_near_the_limit_is_known_in_every_process_and_only_while_it_is_so(app, salon, people, own_valkey):
    elsewhere = Quotas(RedisLink(own_valkey.url))
    statuses(salon, 8)
    assert elsewhere.near_limit() == []
    statuses(salon, 1)
    (usage,) = elsewhere.near_limit()
    assert (usage.org_id, usage.accepted, usage.quota) == (people.salon.id, 9, 10)
    statuses(salon, 5)
    (usage,) = elsewhere.near_limit()
    assert usage.accepted == 10
    RedisLink(own_valkey.url).use(lambda redis: redis.delete(*redis.keys("voicedesk:quota:moving*")))
    assert elsewhere.near_limit() == []
    own_valkey.kill()
    assert elsewhere.near_limit() == []


def test_a_raised_quota_ends_being_near_it(app, cli, salon, people, platform):
    statuses(salon, 10)
    assert len(platform.quotas.near_limit()) == 1
    cli.data("org", "set", people.salon.id, "--api-quota", "100")
    assert salon.get("/calls").headers["RateLimit-Limit"] == "100"
    assert platform.quotas.near_limit() == []


def test_in_memory_a_window_moves_and_the_number_of_keys_is_bounded():
    windows = MovingWindows(100)
    assert [windows.acquire("a", limit=2, window_seconds=0.3) for _ in range(3)] == [True, True, False]
    assert windows.used("a", window_seconds=0.3)[1] == 2
    eventually(lambda: windows.acquire("a", limit=2, window_seconds=0.3), seconds=2)
    for number in range(1000):
        windows.acquire(str(number), limit=2, window_seconds=60)
    assert len(windows._moments) == 100
