"""What a claim costs when the inbox is full: it goes over lanes that have work, never over deliveries."""

from __future__ import annotations

import math
import time
from uuid import uuid4

import pytest

from app.models import lanes
from tests.conftest import superuser

BACKLOG = 100_000
ORGANIZATIONS = 10_000
LIMIT_MS = 20
TRIES = 7


@pytest.fixture
def full_inbox(postgres, platform, database_urls):
    """100,000 waiting in one organization, 100,000 behind one waiting head, 10,000 organizations with one each."""
    noisy, blocked = uuid4(), uuid4()
    deliveries = "INSERT INTO webhook_delivery_log (org_id, provider, type, event_key, lane_key, next_attempt_at)"
    with superuser(postgres, database_urls.name) as cursor:
        for statement, values in (
            ("INSERT INTO lanes SELECT %s, 'l' || i, now() FROM generate_series(1, %s) i", (str(noisy), BACKLOG)),
            (
                deliveries + " SELECT %s, 't', 't', 'a' || i, 'l' || i, now() FROM generate_series(1, %s) i",
                (str(noisy), BACKLOG),
            ),
            ("INSERT INTO lanes VALUES (%s, 'head', now() + interval '1 hour')", (str(blocked),)),
            (
                deliveries
                + " SELECT %s, 't', 't', 'b' || i, 'head', now() + interval '1 hour' FROM generate_series(1, %s) i",
                (str(blocked), BACKLOG),
            ),
            ("INSERT INTO lanes SELECT gen_random_uuid(), 'one', now() FROM generate_series(1, %s)", (ORGANIZATIONS,)),
            (deliveries + " SELECT org_id, 't', 't', 'c', 'one', now() FROM lanes WHERE lane_key = 'one'", None),
            ("VACUUM ANALYZE lanes, webhook_delivery_log", None),
        ):
            cursor.execute(statement, values)


class TakenBack(Exception):
    """Ends a claim that took too long so that the same one can be measured again."""


def claim(platform, after, most=16):
    with platform.database.transaction(system=True) as session:
        return lanes.claim_lanes(session, after=after, most=most, per_org=12, lease_seconds=300, full=[])


def time_claim(platform, after, most):
    """A claim and its milliseconds. One over the limit is taken back and measured again: that a busy machine had no
    processor for it passes, that it is dear does not."""
    least = math.inf
    for tries_left in reversed(range(TRIES)):
        try:
            with platform.database.transaction(system=True) as session:
                began = time.perf_counter()
                found = lanes.claim_lanes(session, after=after, most=most, per_org=12, lease_seconds=300, full=[])
                least = min(least, (time.perf_counter() - began) * 1000)
                if least >= LIMIT_MS and tries_left:
                    raise TakenBack
            break
        except TakenBack:
            continue
    return least, found


def time_claims(platform, most):
    """Sixty claims, each going on where the last one stopped: milliseconds of each, and what they found."""
    claim(platform, lanes.FIRST_ORG, most)  # the connection is opened and the statement parsed once a process
    after, took, found = lanes.FIRST_ORG, [], []
    for _ in range(60):
        milliseconds, one = time_claim(platform, after, most)
        took.append(milliseconds)
        found += one.lanes
        after = one.next_org or lanes.FIRST_ORG
    return took, found


@pytest.mark.parametrize("most", [16, 100])
def test_every_claim_stays_under_20_ms_and_takes_turns_between_organizations(platform, full_inbox, most):
    took, found = time_claims(platform, most)
    assert max(took) < LIMIT_MS
    assert len({lane.org_id for lane in found}) > 500


def test_every_claim_that_finds_nothing_due_stays_under_20_ms_too(platform, full_inbox, postgres, database_urls):
    with superuser(postgres, database_urls.name) as cursor:  # not vacuumed: a claim also meets what the update left
        cursor.execute("UPDATE lanes SET due_at = now() + interval '1 hour'")
    took, found = time_claims(platform, 16)
    assert max(took) < LIMIT_MS
    assert found == []


def test_a_claim_finds_the_few_that_are_due_among_all_that_have_dates_to_come(
    platform, full_inbox, postgres, database_urls
):
    with superuser(postgres, database_urls.name) as cursor:
        cursor.execute("UPDATE lanes SET due_at = now() + interval '1 hour'")
        cursor.execute("SELECT org_id FROM lanes WHERE lane_key = 'one' ORDER BY org_id LIMIT 30 OFFSET 5000")
        few = [row[0] for row in cursor.fetchall()]
        cursor.execute("UPDATE lanes SET due_at = now() WHERE org_id = ANY (%s::uuid[])", (few,))
    first = claim(platform, lanes.FIRST_ORG)
    rest = claim(platform, first.next_org)
    nothing = claim(platform, lanes.FIRST_ORG)
    assert [str(lane.org_id) for lane in sorted((*first.lanes, *rest.lanes), key=lambda lane: lane.org_id)] == few
    assert (len(first.lanes), rest.next_org) == (16, None)
    assert (nothing.lanes, nothing.next_org) == ([], None)


def test_a_whole_round_reaches_every_organization_once_in_spite_of_the_backlog(platform, full_inbox):
    after, seen = lanes.FIRST_ORG, 0
    for _ in range(2 * ORGANIZATIONS // 16):
        found = claim(platform, after)
        seen += len({lane.org_id for lane in found.lanes})
        if found.next_org is None:
            break
        after = found.next_org
    assert seen >= ORGANIZATIONS
