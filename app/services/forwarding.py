"""Events of the front doors, handed on to the organization's own URL and signed there by Standard Webhooks.

Owns what is sent and how an answer is judged. An event is planned as own work in the lane of where it came from, so
that one lane's failure holds up no other; when, how often and until when it is tried is `delivery`'s.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from app.errors import ProviderThrottled, ResourceGone, TemporaryFailure
from app.integrations import webhook_scheme
from app.integrations.forwarder import Answer
from app.integrations.target_circuits import name_of
from app.models.deliveries import find_by_event
from app.models.forward_targets import find_target, now_of, switch_off_gone
from app.observability.logging import get_logger
from app.services import own_work
from app.services.delivery import Postponed, Skip, Work
from app.services.own_work import OwnWork

if TYPE_CHECKING:
    from app.services.platform import Platform

LANE = "forward:"
LONGEST_LANE = 190
AGENT = "Voicedesk-Webhooks/1"
NOT_WANTED = "kept; its organization wants nothing forwarded"
LONGEST_TURN_SECONDS = 60.0

log = get_logger(__name__)


class Turns:
    """How many are sent at once from this process: a quarter of its threads to one target, half of them to all.

    A target that answers slowly is not dead, and must not take the threads that texts and bookings need. Those that
    find no turn come back the later the more they are, so that a backlog is not looked at all the time.
    """

    def __init__(self, threads: int) -> None:
        self._most_of_one, self._most = max(1, threads // 4), max(1, threads // 2)
        self._busy: Counter[UUID] = Counter()
        self._sent_away: Counter[UUID] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def take(self, target: UUID) -> Iterator[None]:
        """Be one of them. Raises Postponed when they are as many as may be."""
        with self._lock:
            if self._busy[target] >= self._most_of_one or self._busy.total() >= self._most:
                self._sent_away[target] += 1
                seconds = min(LONGEST_TURN_SECONDS, 1.0 + self._sent_away[target] // self._most_of_one)
                raise Postponed("others are being forwarded just now", after=timedelta(seconds=seconds))
            self._busy[target] += 1
            self._sent_away[target] -= 1
            if self._sent_away[target] <= 0:
                del self._sent_away[target]
        try:
            yield
        finally:
            with self._lock:
                self._busy[target] -= 1
                if not self._busy[target]:
                    del self._busy[target]


@dataclass(frozen=True, slots=True)
class _Target:
    url: str
    secrets: tuple[bytes, ...]


def hand_on(work: Work) -> Skip | None:
    """Handler of every event of a front door: plan its forwarding, once. What nobody wants stays kept and found."""
    delivery, platform = work.delivery, work.platform
    with platform.database.transaction(delivery.org_id) as session:
        target = find_target(session, delivery.org_id)
        if target is None or target.off_since is not None:
            return Skip(NOT_WANTED)
        planned = find_by_event(session, delivery.org_id, f"{OwnWork.FORWARD_EVENT}:{delivery.id}")
        if planned is not None:
            return Skip(f"its forwarding is delivery {planned}; replay that")
        own_work.plan(
            session,
            delivery.org_id,
            OwnWork.FORWARD_EVENT,
            lane_key=f"{LANE}{_source_lane(work)}"[:LONGEST_LANE],
            payload={"webhook_id": f"msg_{delivery.id}", "message": _message(work)},
            key=str(delivery.id),
        )
    platform.bell.ring()
    return None


def send(work: Work) -> Skip | None:
    """Handler of ``event.forward``: one try. Anything but 2xx is tried again, except 410, which ends it all."""
    platform, org_id, said = work.platform, work.delivery.org_id, work.delivery.body or {}
    target = _read_target(platform, org_id)
    if target is None:
        return Skip(NOT_WANTED)
    body = orjson.dumps(said["message"])
    with platform.forward_turns.take(org_id):
        work.confirm()
        headers = _headers(said["webhook_id"], body, target.secrets)
        answer = platform.forwarder.post(name_of(org_id), target.url, headers, body)
    if answer.status == 410:
        _switch_off(platform, org_id, target.url)
    _judge(answer)
    return None


def _judge(answer: Answer) -> None:
    if 200 <= answer.status < 300:
        return
    if answer.status == 410:
        raise ResourceGone("the target answered 410: send nothing here any more", provider_code="410")
    if answer.status == 429:
        raise ProviderThrottled("the target answered 429: slower", retry_after=answer.retry_after)
    raise TemporaryFailure(
        f"the target answered {answer.status}", code="target_refused", retry_after=answer.retry_after
    )


def _message(work: Work) -> dict[str, Any]:
    """What is sent, in the specification's form: the provider's own type, when it happened, what it said."""
    delivery = work.delivery
    happened = (delivery.occurred_at or delivery.received_at).astimezone(UTC)
    return {
        "type": delivery.type,
        "timestamp": happened.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "provider": delivery.provider,
        "event_id": delivery.event_key,
        "data": delivery.body,
    }


def _source_lane(work: Work) -> str:
    """The lane the event came in by, also when it has been set aside or replayed since."""
    return work.lane.lane_key.partition(":aside:")[0].partition(":replay:")[0]


def _headers(message_id: str, body: bytes, secrets: tuple[bytes, ...]) -> dict[str, str]:
    """The id stays the same over all tries; time and signatures are of this one."""
    stamp = str(int(datetime.now(UTC).timestamp()))
    content = webhook_scheme.signed_content(message_id.encode(), stamp.encode(), body)
    return {
        "Content-Type": "application/json",
        "User-Agent": AGENT,
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(webhook_scheme.sign(secret, content) for secret in secrets),
    }


def _read_target(platform: Platform, org_id: UUID) -> _Target | None:
    """As it is now: an operator may have changed it since the last try."""
    with platform.database.transaction(org_id) as session:
        row = find_target(session, org_id)
        if row is None or row.off_since is not None:
            return None
        sealed = [row.secret]
        if row.previous_secret is not None and row.previous_until is not None and now_of(session) < row.previous_until:
            sealed.append(row.previous_secret)
        url = row.url
    opened = (platform.vault.open_bytes(one).decode() for one in sealed)
    return _Target(url, tuple(webhook_scheme.read_secret(secret) for secret in opened))


def _switch_off(platform: Platform, org_id: UUID, url: str) -> None:
    with platform.database.transaction(system=True) as session:
        off = switch_off_gone(session, org_id, url=url)
    if off:
        log.warning("forward.switched_off", org_id=str(org_id))
