"""Alerts: what is open, and telling people of what began and what ended. In Slack, or in the log without it.

Owns who is told what, and how often is tried. What may be wrong is alert_causes.py's, the words are
alert_texts.py's, when is looked is watch.py's.

Slack has no idempotency key, so a post is marked as told after it succeeded. One whose answer was lost may
have arrived: it is posted again after a minute, because an alert told twice costs less than one not told.
The same is true when this process dies between a post and its mark.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from app.errors import CredentialsRefused, TemporaryFailure, VoicedeskError
from app.models import alerts as rows
from app.models.alerts import Alert
from app.models.organizations import names_of
from app.observability.logging import describe, get_logger
from app.services import alert_texts
from app.services.alert_texts import Telling
from app.services.connecting import google

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.services.platform import Platform

POSTS_APART_SECONDS = 1.0  # Slack's limit for one channel
IN_DOUBT_SECONDS = 60.0
REFUSED_SECONDS = 60.0  # a token or a channel is mended by people
AGAIN_SECONDS = 10.0  # certainly not posted, and nobody said when to come back
MOST_ALONE = 5  # more than so many at once are one message
LIST_TIMEOUT_MS = 2_000

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """Something that is wrong now. ``told_at`` is None while nobody could be told."""

    key: str
    kind: str
    headline: str
    facts: dict[str, Any]
    began_at: datetime
    seen_at: datetime
    told_at: datetime | None


def open_alerts(platform: Platform) -> list[OpenAlert]:
    """What is wrong now, the longest first. Raises DatabaseUnavailable."""
    with platform.database.transaction(system=True, statement_timeout_ms=LIST_TIMEOUT_MS) as session:
        return [
            OpenAlert(
                key=alert.key,
                kind=alert.kind,
                headline=alert_texts.headline(_beginning(alert)),
                facts=alert.facts,
                began_at=alert.began_at,
                seen_at=alert.seen_at,
                told_at=alert.told_at,
            )
            for alert in rows.list_open(session)
            if alert.kind in alert_texts.WORDINGS
        ]


def read_untold(session: Session) -> list[Telling]:
    """What a person is yet to be told: of each alert its beginning first, its end in a later round."""
    untold = [alert for alert in rows.list_untold(session) if alert.kind in alert_texts.WORDINGS]
    orgs = {UUID(alert.facts["org_id"]) for alert in untold if "org_id" in alert.facts}
    names = names_of(session, orgs)
    return [
        Telling(
            key=alert.key,
            kind=alert.kind,
            facts=alert.facts,
            began_at=alert.began_at,
            ended_at=None if alert.told_at is None else alert.ended_at,
            organization=names.get(UUID(alert.facts["org_id"]), "") if "org_id" in alert.facts else "",
        )
        for alert in untold
    ]


def mark_told(session: Session, tellings: Sequence[Telling]) -> None:
    """Remember that a person has been told."""
    rows.mark_told(session, [telling.key for telling in tellings if telling.ended_at is None])
    rows.mark_end_told(session, [telling.key for telling in tellings if telling.ended_at is not None])


class Teller:
    """One process's way to people: one post a second, silent as long as Slack wishes. Used by one thread.

    ``wait`` sleeps for so many seconds, or until the process is to stop.
    """

    def __init__(self, platform: Platform, wait: Callable[[float], object]) -> None:
        self._platform = platform
        self._wait = wait
        self._silent_until = 0.0
        self._posted_at = 0.0
        self._logged: dict[tuple[str, bool], datetime] = {}

    @property
    def silent(self) -> bool:
        """Whether nothing can be told just now."""
        return self._platform.slack is not None and time.monotonic() < self._silent_until

    def tell(self, tellings: Sequence[Telling]) -> list[Telling]:
        """Tell as many as one message takes, and return those; none when that failed or must wait."""
        together = list(tellings) if len(tellings) > MOST_ALONE else list(tellings[:1])
        for telling in tellings:
            self._log(telling)
        if self._platform.slack is None:
            return list(tellings)
        if not together or self.silent or not self._post(together):
            return []
        return together

    def _page(self, telling: Telling) -> str | None:
        """Of a withdrawn consent: where a new one is given. It goes to Slack alone, neither into the log nor a row."""
        if telling.kind != "credentials_refused" or telling.facts.get("provider") != "google-calendar":
            return None
        return google.page(self._platform, UUID(str(telling.facts["org_id"])))

    def _post(self, tellings: list[Telling]) -> bool:
        base_url = self._platform.settings.public_base_url
        if len(tellings) == 1:
            page = self._page(tellings[0])
            text, blocks = alert_texts.message(tellings[0], base_url=base_url, page=page)
        else:
            text, blocks = alert_texts.digest(tellings, base_url=base_url)
        self._wait(self._posted_at + POSTS_APART_SECONDS - time.monotonic())
        assert self._platform.slack is not None
        try:
            self._platform.slack.post(text, blocks=blocks)
        except VoicedeskError as error:
            self._silent_until = time.monotonic() + _silence(error)
            log.warning("alert.not_told", alerts=len(tellings), **describe(error))
            return False
        finally:
            self._posted_at = time.monotonic()
        return True

    def _log(self, telling: Telling) -> None:
        """A line at the first try, whatever becomes of the message."""
        which = (telling.key, telling.ended_at is not None)
        moment = telling.ended_at or telling.began_at
        if self._logged.get(which) == moment:
            return
        self._logged[which] = moment
        event, say = ("alert.ended", log.info) if telling.ended_at else ("alert.began", log.warning)
        began_at = telling.began_at.isoformat(timespec="seconds")
        say(event, alert=telling.key, kind=telling.kind, began_at=began_at, facts=dict(telling.facts))


def _silence(error: VoicedeskError) -> float:
    """For how many seconds nothing is posted after this failure."""
    wish = error.retry_after.total_seconds() if isinstance(error, TemporaryFailure) and error.retry_after else 0.0
    if getattr(error, "maybe_done", False):
        return max(wish, IN_DOUBT_SECONDS)
    if not isinstance(error, TemporaryFailure) or isinstance(error, CredentialsRefused):
        return max(wish, REFUSED_SECONDS)
    return max(wish, POSTS_APART_SECONDS) if wish else AGAIN_SECONDS


def _beginning(alert: Alert) -> Telling:
    return Telling(alert.key, alert.kind, alert.facts, alert.began_at)
