"""What is said of each alert: what it is, what it means, what to do. Slack's Block Kit, and plain text.

Owns the words and their escaping, and knows every kind of alert: one that is not here cannot be told.
docs/operations.md has a section for each, named like it. Facts are ids, counts and codes, never what
somebody said; an organization's name is given beside its id, escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.integrations.slack import escape

MOST_LINES = 30  # of a message about many; Slack takes 3,000 characters a section
LONGEST_FACT = 200
Blocks = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Wording:
    """One kind of alert. ``title`` may name facts; ``look`` is a path of ours or a `flask --app wsgi` command."""

    title: str
    over: str
    means: str
    do: str
    look: str


DATABASE = "/health/database"
QUEUE = "/health/queue"

WORDINGS: dict[str, Wording] = {
    "database_lost": Wording(
        "The database cannot be reached",
        "The database is back",
        "Webhooks go to the spool on each host's disk; nothing is processed, callers hear prepared sentences.",
        "See whether PostgreSQL runs, has free connections and space on its disk, and whether the network is up.",
        DATABASE,
    ),
    "spool_not_empty": Wording(
        "Events wait in the spool of {host}",
        "The spool of {host} is empty again",
        "They were answered with 2xx and are on this host's disk alone: the database could not take them. They go into"
        " it by themselves when it can; what was set aside needs a person.",
        "See to the database, and keep this host and its disk. `flask --app wsgi spool list` there says what waits;"
        " `spool drain` takes it in by hand, with --set-aside also what could not be read.",
        "flask --app wsgi spool list",
    ),
    "spool_failing": Wording(
        "The spool of {host} takes no more, or soon will not",
        "The spool of {host} takes events again",
        "While the database is away, webhooks that come to this host are answered with 503; most are never sent again.",
        "Make room on its disk, raise SPOOL_MAX_BYTES, or mend owner and mode of SPOOL_DIR; then see to the database.",
        "flask --app wsgi spool list",
    ),
    "redis_lost": Wording(
        "Redis cannot be reached",
        "Redis is back",
        "Nothing is lost: web processes deliver by themselves, more slowly. Quotas and circuits are counted by each"
        " process alone.",
        "See whether Redis runs and answers within 50 ms; workers return to it by themselves.",
        "/health/redis",
    ),
    "limiter_cannot_count": Wording(
        "Quotas cannot be counted across processes",
        "Quotas are counted again",
        "The API lets requests through, each process counting alone.",
        "See Redis; it keeps the counts.",
        "/health/redis",
    ),
    "circuit_open": Wording(
        "Circuit {circuit} is open",
        "Circuit {circuit} is closed",
        "The provider failed several times in a row and is not called for now. What needs it waits without spending"
        " attempts; callers get prepared sentences.",
        "See the provider's status page. It is probed by itself and closes when the provider answers.",
        "flask --app wsgi circuits",
    ),
    "error_rate": Wording(
        "{errors} errors in five minutes",
        "The error rate is normal again",
        "More goes wrong than ERROR_RATE_LIMIT allows; the commonest kinds are below.",
        "Look into the log for these kinds, or into Sentry; think of what was deployed last.",
        QUEUE,
    ),
    "oldest_waiting": Wording(
        "Events wait too long",
        "Events no longer wait too long",
        "An event has been due for longer than OLDEST_WAITING_LIMIT_SECONDS and nobody has taken it.",
        "See whether workers run and are enough, and whether the database is slow.",
        QUEUE,
    ),
    "dead_letters": Wording(
        "Dead letters: {provider} {type} ({error_code})",
        "No more dead letters: {provider} {type} ({error_code})",
        "Deliveries were given up: their last attempt failed, or repeating it could not help. They are kept and can be"
        " replayed.",
        "Read why, mend the cause, then replay them: `flask --app wsgi deliveries replay ID`.",
        "flask --app wsgi deliveries list --status dead",
    ),
    "ledger_broken": Wording(
        "The books do not balance",
        "The books balance again",
        "What was accepted is not what was processed, skipped, dead or waits: events may have been lost.",
        "Keep logs and backups, stop whoever changes tables by hand, and find out when the difference began.",
        QUEUE,
    ),
    "canary_missed": Wording(
        "The canary has not come through",
        "The canary comes through again",
        "An event of our own, sent the whole way, was not processed in time: the same is true of everybody's events.",
        "See whether workers and web processes run and do something; restart one that lives and does nothing.",
        QUEUE,
    ),
    "workers_idle": Wording(
        "No worker works",
        "Workers work again",
        "Redis answers, and yet web processes have to deliver what workers should: there is no worker, or none moves.",
        "Start or restart the workers, and see that they use this Redis and the queue voicedesk.",
        QUEUE,
    ),
    "calendar_channel_lapsing": Wording(
        "A Google push channel is about to lapse",
        "The Google push channel has a successor",
        "From then on changes that people make in this calendar are seen only every quarter of an hour.",
        "A successor should have been opened by itself: see why the calendar.watch deliveries fail.",
        "flask --app wsgi calendar channels",
    ),
    "calendar_conflict": Wording(
        "Two things at one time in an organization's calendar",
        "No booking collides in the organization's calendar any more",
        "Somebody entered an event on top of a booking, or dragged one booking onto another. Both stand; the customer"
        " has been told nothing.",
        "Ask the business which it keeps and move or cancel the other in the calendar; whoever is concerned is texted.",
        "flask --app wsgi appointments list --org ID",
    ),
    "unowned_event": Wording(
        "Events of {provider} belong to no organization",
        "Every event of {provider} has an owner again",
        "They came through an account that serves many, and nothing in them names one organization. They are kept and"
        " wait; callers hear that the number is not set up.",
        "Name their owner: `flask --app wsgi org set ID` with --number, --assistant, --vapi-phone-number,"
        " --twilio-account or --messaging-service; or `flask --app wsgi deliveries assign ID ORG`.",
        "flask --app wsgi deliveries list --unowned",
    ),
    "forward_switched_off": Wording(
        "Events are no longer forwarded to an organization",
        "Forwarding to the organization is settled again",
        "Its own URL answered 410, which says: never again. What comes in is kept and not forwarded.",
        "Ask the organization for its new URL, and set it: `flask --app wsgi forward set ORG URL`; or end it with"
        " `forward off ORG`. What was skipped meanwhile can be replayed.",
        "flask --app wsgi forward show ORG",
    ),
    "reconcile_missing": Wording(
        "{provider} had events that never arrived here",
        "Nothing of {provider} has been missing for an hour",
        "A comparison with the provider found calls, texts or changes of which no webhook came. They are filled in"
        " and are handled like any other; only the delay is left.",
        "See why webhooks do not come: `flask --app wsgi integration check ID`, and the provider's own log of them.",
        "flask --app wsgi reconcile --dry-run",
    ),
    "credentials_refused": Wording(
        "{provider} refuses an organization's credentials",
        "{provider} has not refused this organization's credentials any more",
        "Only this organization is concerned: its texts or bookings fail until its credentials are renewed.",
        "A withdrawn consent to a calendar: `flask --app wsgi integration connect google ORG_ID` prints a new link."
        " Else ask for new ones and set them: `flask --app wsgi integration set ID --set key=value`."
        " What waits is then done.",
        "flask --app wsgi integration list",
    ),
    "api_quota_near": Wording(
        "An organization has used 90 % of its API quota",
        "The organization is below 90 % of its API quota",
        "At 100 % its requests are answered with 429 until older ones are an hour old.",
        "Ask what its program does, or raise the quota: `flask --app wsgi org set ID --api-quota N`.",
        "flask --app wsgi org show",
    ),
    "api_quota_reached": Wording(
        "An organization has used up its API quota",
        "The organization is within its API quota again",
        "Its requests are answered with 429. Nobody else is concerned.",
        "Ask what its program does, or raise the quota: `flask --app wsgi org set ID --api-quota N`.",
        "flask --app wsgi org show",
    ),
    "webhook_quota_near": Wording(
        "An organization has used 90 % of its webhook quota",
        "The organization is below 90 % of its webhook quota",
        "At 100 % its events are last in turn. None is refused or lost.",
        "See what sends so much, or raise the quota: `flask --app wsgi org set ID --webhook-quota N`.",
        "flask --app wsgi deliveries list --org ID",
    ),
    "webhook_quota_reached": Wording(
        "An organization is over its webhook quota",
        "The organization is within its webhook quota again",
        "Its events are processed when nobody else's wait. None is refused or lost.",
        "See what sends so much, or raise the quota: `flask --app wsgi org set ID --webhook-quota N`.",
        "flask --app wsgi deliveries list --org ID",
    ),
    "usage_limit": Wording(
        "An organization has used {percent} % of its monthly limit ({what})",
        "The month is over, or the limit was raised: {percent} % ({what})",
        "Nothing is refused or stopped: somebody wanted to hear of it.",
        "See what was used, and tell the organization; or set another limit: `flask --app wsgi org limit ID`.",
        "flask --app wsgi usage --org ID",
    ),
    "delivery_set_aside": Wording(
        "Set aside: {provider} {type}",
        "Nothing is set aside any more: {provider} {type}",
        "These events failed for so long that those behind them went on without them. They are still retried.",
        "Read why they fail; when the cause is mended they end by themselves.",
        "flask --app wsgi deliveries list --status retrying",
    ),
    "message_unknown": Wording(
        "Nobody knows whether texts were sent",
        "The fate of all texts is known again",
        "Twilio did not answer, and looking the texts up did not tell. They are not sent again by themselves, because"
        " two are worse than one.",
        "Look each up in Twilio's console and tell the recipient what was missed.",
        "flask --app wsgi messages list --org ID",
    ),
}


@dataclass(frozen=True, slots=True)
class Telling:
    """One thing to be told: that a cause began or, with ``ended_at``, that it ended."""

    key: str
    kind: str
    facts: Mapping[str, Any]
    began_at: datetime
    ended_at: datetime | None = None
    organization: str = ""


def headline(telling: Telling) -> str:
    """One line, unescaped."""
    wording = WORDINGS[telling.kind]
    line = wording.over if telling.ended_at else wording.title
    return line.format_map(_Facts(telling.facts))


def message(telling: Telling, *, base_url: str, page: str | None = None) -> tuple[str, Blocks]:
    """The text and the blocks of a message about one alert; ``page``: where its end begins, told here alone."""
    wording, line = WORDINGS[telling.kind], headline(telling)
    if telling.ended_at:
        body = f"*Over.* It was so from {_when(telling.began_at)} to {_when(telling.ended_at)}."
        return f":white_check_mark: {escape(line)}", [_header(f"✅ {line}"), _section(body), _facts(telling)]
    blocks = [
        _header(f"🔴 {line}"),
        _section(f"*What it means.* {wording.means}"),
        _section(f"*What to do.* {wording.do}"),
        _section(f"*Where to look.* {_place(wording.look, base_url)}, and docs/operations.md#{anchor(telling.kind)}"),
        _facts(telling),
    ]
    if page:
        blocks.insert(3, _section(f"*A new link.* <{page}|Connect the calendar again>, for its owner, within a week."))
    return f":red_circle: {escape(line)}", blocks


def digest(tellings: Sequence[Telling], *, base_url: str) -> tuple[str, Blocks]:
    """The text and the blocks of one message about many alerts."""
    ends = sum(1 for telling in tellings if telling.ended_at)
    counts = [f"{len(tellings) - ends} alerts began"] * (ends < len(tellings)) + [f"{ends} alerts ended"] * (ends > 0)
    line = ", ".join(counts)
    lines = [_line(telling) for telling in tellings[:MOST_LINES]]
    if len(tellings) > MOST_LINES:
        lines.append(f"and {len(tellings) - MOST_LINES} more")
    blocks = [_header(f"🔴 {line}" if ends < len(tellings) else f"✅ {line}")]
    blocks += [_section("\n".join(lines[place : place + 8])) for place in range(0, len(lines), 8)]
    look = _place("flask --app wsgi alerts list", base_url)
    return escape(line), [*blocks, _section(f"*Where to look.* {look}, {_place(QUEUE, base_url)}, docs/operations.md")]


def anchor(kind: str) -> str:
    """The section of docs/operations.md."""
    return kind.replace("_", "-")


def _line(telling: Telling) -> str:
    mark = ":white_check_mark:" if telling.ended_at else ":red_circle:"
    return f"{mark} {escape(headline(telling))}{_organization(telling)} ({_when(telling.ended_at or telling.began_at)})"


def _facts(telling: Telling) -> dict[str, Any]:
    shown = [f"{name}: {escape(_value(value))}" for name, value in sorted(telling.facts.items())]
    parts = [f"since {_when(telling.began_at)}", *shown]
    text = "; ".join(parts)[:2900] + _organization(telling)
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text}]}


def _organization(telling: Telling) -> str:
    return f" [{escape(telling.organization[:80])}]" if telling.organization else ""


def _value(value: Any) -> str:
    text = ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return text[:LONGEST_FACT]


def _place(look: str, base_url: str) -> str:
    return f"<{base_url}{look}|{look}>" if look.startswith("/") else f"`{look}`"


def _when(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _header(line: str) -> dict[str, Any]:
    return {"type": "header", "text": {"type": "plain_text", "text": line[:150], "emoji": True}}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text[:3000]}}


class _Facts(dict[str, Any]):
    """Facts for a headline; one that is missing must not keep an alert from being told."""

    def __missing__(self, name: str) -> str:
        return "?"
