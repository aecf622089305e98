"""One person's rows, found by their number through indexes, and what is left of each when it is erased.

Owns these statements. Rows stay as long as they would have, with their natural keys, so that a late webhook or a
look at the provider brings nothing back; what was said and who said it goes. Runs as the system role.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session
from sqlalchemy.types import BigInteger, Text, Uuid

from app.models.aliases import alias_of, make_key
from app.models.deliveries import TOLD, UNFINISHED

ERASED = "[erased]"
_ORG = "(CAST(:org AS uuid) IS NULL OR org_id = CAST(:org AS uuid))"

Ref = tuple[UUID, Any]


@dataclass
class Traces:
    """Where the person is known: each a list of organization and id (a call: Vapi's, too)."""

    calls: list[tuple[UUID, UUID, str]] = field(default_factory=list)
    messages: list[tuple[UUID, UUID, str | None]] = field(default_factory=list)
    appointments: list[Ref] = field(default_factory=list)
    opt_outs: list[UUID] = field(default_factory=list)

    def organizations(self) -> set[UUID]:
        """Who knows the person."""
        return {
            *(one[0] for one in self.calls),
            *(one[0] for one in self.messages),
            *(one[0] for one in self.appointments),
            *self.opt_outs,
        }


def is_the_houses(session: Session, number: str) -> bool:
    """Whether the number is one that an organization answers, sends from or transfers to."""
    owned = (
        "SELECT EXISTS (SELECT FROM organizations WHERE :number IN (phone_number, transfer_number))"
        " OR EXISTS (SELECT FROM routing_keys WHERE value = :number)"
    )
    return bool(session.execute(text(owned), {"number": number}).scalar())


def find_traces(session: Session, number: str, *, org_id: UUID | None) -> Traces:
    """The person's calls, texts, appointments and consent. A caller without a number who booked for this one is it."""
    values = {"number": number, "org": org_id}

    def rows(statement: str) -> list[Any]:
        return [tuple(row) for row in session.execute(text(statement), values)]

    return Traces(
        calls=rows(
            f"SELECT org_id, id, vapi_call_id FROM calls WHERE customer_number = :number AND {_ORG}"
            " UNION SELECT c.org_id, c.id, c.vapi_call_id FROM appointments a JOIN calls c"
            " ON c.org_id = a.org_id AND c.vapi_call_id = a.call_id AND c.customer_number IS NULL"
            f" AND c.erased_at IS NULL WHERE a.phone = :number AND {_ORG.replace('org_id', 'a.org_id')}"
        ),
        messages=rows(f"SELECT org_id, id, provider_sid FROM messages WHERE remote_address = :number AND {_ORG}"),
        appointments=rows(f"SELECT org_id, id FROM appointments WHERE phone = :number AND {_ORG}"),
        opt_outs=[
            row[0]
            for row in rows(
                "SELECT c.org_id FROM organizations o CROSS JOIN LATERAL"
                " (SELECT org_id FROM opt_outs WHERE org_id = o.id AND address = :number OFFSET 0) c"
                " WHERE CAST(:org AS uuid) IS NULL OR o.id = CAST(:org AS uuid)"
            )
        ],
    )


def deliveries_in(session: Session, lane: str, *, org_id: UUID | None) -> list[tuple[UUID, int]]:
    """What came in or was planned in a lane, and in those that were set aside or replayed from it."""
    prefix = lane[:150].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    found = session.execute(
        text(
            "SELECT org_id, id FROM webhook_delivery_log"
            f" WHERE (lane_key = :lane OR lane_key LIKE :aside) AND {TOLD} AND {_ORG} ORDER BY id"
        ),
        {"lane": lane, "aside": f"{prefix}:%", "org": org_id},
    )
    return [(row[0], row[1]) for row in found]


def erase_deliveries(session: Session, deliveries: Sequence[tuple[UUID, int]]) -> tuple[int, int, int]:
    """Take away what these said. What has not begun is ended and entered in the books as erased.

    Returns how many lost what they said, how many were ended, and how many are being handled just now and were
    left alone. Lanes are locked first and in order, as intake does.
    """
    values = {"orgs": [one[0] for one in deliveries], "ids": [one[1] for one in deliveries]}
    wanted = "SELECT org_id, id FROM unnest(:orgs, :ids) AS w(org_id, id)"

    def run(statement: str) -> Any:
        bound = text(statement).bindparams(
            bindparam("orgs", type_=ARRAY(Uuid)), bindparam("ids", type_=ARRAY(BigInteger))
        )
        return session.execute(bound, values)

    run(
        f"SELECT FROM lanes l WHERE (l.org_id, l.lane_key) IN (SELECT d.org_id, d.lane_key"
        f" FROM webhook_delivery_log d WHERE (d.org_id, d.id) IN ({wanted}) AND d.{UNFINISHED})"
        " ORDER BY l.org_id, l.lane_key FOR UPDATE"
    )
    row = run(
        f"""
        WITH theirs AS MATERIALIZED (
            SELECT d.org_id, d.id, d.{UNFINISHED} AS unfinished, d.{UNFINISHED} AND EXISTS (
                SELECT FROM lanes l WHERE l.org_id = d.org_id AND l.lane_key = d.lane_key
                AND l.token IS NOT NULL AND l.due_at > now() AND d.running_since IS NOT NULL) AS running
            FROM webhook_delivery_log d WHERE (d.org_id, d.id) IN ({wanted}) ORDER BY d.id FOR UPDATE
        ), silent AS (
            UPDATE webhook_delivery_log d SET lane_key = 'erased:' || d.id, note = 'erased on request',
                error_code = 'erased', waiting_on = NULL, held_since = NULL, running_since = NULL,
                status = CASE WHEN t.unfinished THEN 'skipped' ELSE d.status END,
                finished_at = coalesce(d.finished_at, now())
            FROM theirs t WHERE d.org_id = t.org_id AND d.id = t.id AND NOT t.running
            RETURNING d.org_id, d.id, d.provider, t.unfinished
        ), booked AS (
            INSERT INTO ledger_entries (org_id, provider, erased)
            SELECT org_id, provider, count(*) FROM silent WHERE unfinished GROUP BY org_id, provider
        ), emptied AS (
            UPDATE webhook_payloads p SET body = NULL, raw = NULL, answer = NULL
            FROM silent s WHERE p.org_id = s.org_id AND p.delivery_id = s.id
        )
        SELECT (SELECT count(*) FROM silent), (SELECT count(*) FROM silent WHERE unfinished),
               (SELECT count(*) FROM theirs WHERE running)
        """
    ).one()
    return row[0], row[1], row[2]


def erase_calls(session: Session, calls: Sequence[tuple[UUID, UUID, str]]) -> int:
    """Empty calls, for good, and what was answered in them; how many answers."""
    _by_ids(
        session,
        "UPDATE calls c SET customer_number = NULL, summary = NULL, transcript = NULL, recording_url = NULL,"
        " structured_data = NULL, success_evaluation = NULL, erased_at = now()"
        " FROM unnest(:orgs, :ids) AS w(org_id, id) WHERE c.org_id = w.org_id AND c.id = w.id",
        [(org_id, call_id) for org_id, call_id, _ in calls],
    )
    return _by_names(
        session,
        f"UPDATE tool_answers t SET result = '{ERASED}' FROM unnest(:orgs, :names) AS w(org_id, name)"
        f" WHERE t.org_id = w.org_id AND t.call_id = w.name AND t.result <> '{ERASED}' RETURNING 1",
        [(org_id, vapi_id) for org_id, _, vapi_id in calls],
    )


def erase_messages(session: Session, messages: Sequence[tuple[UUID, UUID, str | None]]) -> None:
    """Empty texts; what was not sent yet never is."""
    _by_ids(
        session,
        "UPDATE messages m SET remote_address = 'erased', body = '', media = '[]', profile_name = NULL, error = NULL,"
        " template_values = NULL,"
        " idempotency_key = CASE WHEN purpose IS NULL THEN 'erased:' || m.id ELSE idempotency_key END,"
        " status = CASE WHEN status IN ('planned', 'sending', 'unknown') AND provider_sid IS NULL"
        " THEN 'canceled' ELSE status END FROM unnest(:orgs, :ids) AS w(org_id, id)"
        " WHERE m.org_id = w.org_id AND m.id = w.id",
        [(org_id, message_id) for org_id, message_id, _ in messages],
    )


def erase_dialogues(session: Session, number: str, *, org_id: UUID | None) -> None:
    """Forget what they were offered by text."""
    session.execute(
        text(f"DELETE FROM text_dialogues WHERE address = :number AND {_ORG}"), {"number": number, "org": org_id}
    )


def erase_appointments(session: Session, appointments: Sequence[Ref]) -> list[Ref]:
    """Appointments without who has them; those that may be in a calendar, where the name still stands."""
    _by_ids(
        session,
        f"UPDATE appointments a SET name = '{ERASED}', phone = NULL, notes = NULL"
        " FROM unnest(:orgs, :ids) AS w(org_id, id) WHERE a.org_id = w.org_id AND a.id = w.id",
        appointments,
    )
    found = session.execute(
        text(
            "SELECT a.org_id, a.id FROM appointments a JOIN unnest(:orgs, :ids) AS w(org_id, id)"
            " ON a.org_id = w.org_id AND a.id = w.id"
            " WHERE (a.google_event_id IS NOT NULL OR a.creation_begun) AND a.status <> 'cancelled'"
        ).bindparams(bindparam("orgs", type_=ARRAY(Uuid)), bindparam("ids", type_=ARRAY(Uuid))),
        {"orgs": [one[0] for one in appointments], "ids": [one[1] for one in appointments]},
    )
    return [(row[0], row[1]) for row in found]


def hide_opt_outs(session: Session, number: str, org_ids: Sequence[UUID]) -> None:
    """What the person has said about texts, under an alias: whoever texts the number again still finds it."""
    make_key(session)
    alias = alias_of(session, number)
    for org_id in org_ids:
        session.execute(
            text(
                "WITH gone AS (DELETE FROM opt_outs WHERE org_id = :org AND address = :number"
                " RETURNING org_id, opted_out, source, changed_at)"
                " INSERT INTO opt_outs (org_id, address, opted_out, source, changed_at)"
                " SELECT org_id, :alias, opted_out, source, changed_at FROM gone"
                " ON CONFLICT (org_id, address) DO UPDATE SET opted_out = excluded.opted_out,"
                " source = excluded.source, changed_at = excluded.changed_at"
            ),
            {"org": org_id, "number": number, "alias": alias},
        )


def _by_ids(session: Session, statement: str, refs: Sequence[Ref]) -> None:
    bound = text(statement).bindparams(bindparam("orgs", type_=ARRAY(Uuid)), bindparam("ids", type_=ARRAY(Uuid)))
    session.execute(bound, {"orgs": [one[0] for one in refs], "ids": [one[1] for one in refs]})


def _by_names(session: Session, statement: str, refs: Sequence[Ref]) -> int:
    bound = text(statement).bindparams(bindparam("orgs", type_=ARRAY(Uuid)), bindparam("names", type_=ARRAY(Text)))
    return len(session.execute(bound, {"orgs": [one[0] for one in refs], "names": [one[1] for one in refs]}).all())
