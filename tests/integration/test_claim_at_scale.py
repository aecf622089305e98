"""What a claim costs when the inbox is full: it goes over lanes that have work, never over deliveries."""

from __future__ import annotations

from uuid import uuid4

import pytest

from app.models import lanes
from tests.conftest import superuser

BACKLOG = 100_000
ORGANIZATIONS = 10_000
ROWS = 2_000  # of a table with 110,000 and more
PAGES, PAGES_OF_ONE = 2_000, 40  # of one that finds nothing among what an update has left; and of each lane found


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


def claim(platform, after, most=16):
    with platform.database.transaction(system=True) as session:
        return lanes.claim_lanes(session, after=after, most=most, per_org=12, lease_seconds=300, full=[])


def claims(platform, account, most):
    """Sixty claims, each going on where the last one stopped: the pages of each, and what they found.

    By the server's own account. What that takes is told in ``benchmarks/``: 20 ms is another thing on another machine.
    """
    account.begin()
    after, found = lanes.FIRST_ORG, []
    for _ in range(60):
        one = claim(platform, after, most)
        found += one.lanes
        after = one.next_org or lanes.FIRST_ORG
    said = [one for one in account.statements() if "claimed AS" in one.asked]
    assert len(said) == 60
    assert max(rows for one in said for _, rows in one.readings()) < ROWS
    return [one.pages for one in said], found


@pytest.mark.parametrize("most", [16, 100])
def test_every_claim_reads_few_pages_and_takes_turns_between_organizations(platform, full_inbox, account, most):
    pages, found = claims(platform, account, most)
    assert max(pages) < PAGES_OF_ONE * most
    assert len({lane.org_id for lane in found}) > 500


def test_every_claim_that_finds_nothing_due_reads_few_pages_too(platform, full_inbox, account, postgres, database_urls):
    with superuser(postgres, database_urls.name) as cursor:  # not vacuumed: a claim also meets what the update left
        cursor.execute("UPDATE lanes SET due_at = now() + interval '1 hour'")
    pages, found = claims(platform, account, 16)
    assert max(pages) < PAGES
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
