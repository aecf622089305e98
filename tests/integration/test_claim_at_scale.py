"""What a claim costs when the inbox is full: it goes over lanes that have work, never over deliveries."""

from __future__ import annotations

import statistics
import time
from uuid import uuid4

import psycopg2
import pytest

from app.models import lanes

BACKLOG = 100_000
ORGANIZATIONS = 10_000


@pytest.fixture
def full_inbox(postgres, platform, database_urls):
    """100,000 waiting in one organization, 100,000 behind one waiting head, 10,000 organizations with one each."""
    connection = psycopg2.connect(postgres.superuser_url(database_urls.name))
    connection.autocommit = True
    noisy, blocked = uuid4(), uuid4()
    deliveries = "INSERT INTO webhook_delivery_log (org_id, provider, type, event_key, lane_key, next_attempt_at)"
    with connection.cursor() as cursor:
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
    connection.close()


def claim(platform, after):
    with platform.database.transaction(system=True) as session:
        return lanes.claim_lanes(session, after=after, most=16, per_org=12, lease_seconds=300, full=[])


def test_a_claim_stays_under_20_ms_and_takes_turns_between_organizations(platform, full_inbox):
    after, took, organizations = lanes.FIRST_ORG, [], set()
    for _ in range(40):
        began = time.perf_counter()
        found = claim(platform, after)
        took.append((time.perf_counter() - began) * 1000)
        organizations |= {lane.org_id for lane in found.lanes}
        after = found.next_org or lanes.FIRST_ORG
    assert statistics.median(took) < 20
    assert len(organizations) > 500


def test_a_whole_round_reaches_every_organization_once_in_spite_of_the_backlog(platform, full_inbox):
    after, seen = lanes.FIRST_ORG, 0
    for _ in range(2 * ORGANIZATIONS // 16):
        found = claim(platform, after)
        seen += len({lane.org_id for lane in found.lanes})
        if found.next_org is None:
            break
        after = found.next_org
    assert seen >= ORGANIZATIONS
