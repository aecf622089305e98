"""The queries by which a person finds everything about one event, one call or one phone number.

Each goes by an index and is bounded, across organizations unless one is named. Runs as the system role, whose
policies leave every index usable; the organization, when given, is a condition of each statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session
from sqlalchemy.types import BigInteger, Text, Uuid

from app.models.deliveries import OPEN_OR_ENDED, TOLD

Row = dict[str, Any]

_ORG = "(CAST(:org AS uuid) IS NULL OR org_id = CAST(:org AS uuid))"
_DELIVERY = """SELECT id, org_id, integration_id, provider, type, event_key, lane_key, status, attempts, received_at,
    occurred_at, finished_at, set_aside_at, waiting_on, error_code, note FROM webhook_delivery_log"""


def deliveries_of_event(session: Session, event: str, *, org_id: UUID | None, limit: int) -> list[Row]:
    """Deliveries with the provider's id of the event (or, for a whole number, with our own), the newest first."""
    by_number = " OR id = CAST(:number AS bigint)" if event.isdecimal() and len(event) < 19 else ""
    values: Row = {"event": event, "org": org_id, "limit": limit}
    if by_number:
        values["number"] = int(event)
    by_key = f"event_key = :event AND {OPEN_OR_ENDED}"
    statement = f"{_DELIVERY} WHERE ({by_key}{by_number}) AND {_ORG} ORDER BY id DESC LIMIT :limit"
    return _rows(session, text(statement), values)


def deliveries_in_lanes(session: Session, lanes: Sequence[str], *, org_id: UUID | None, limit: int) -> list[Row]:
    """Deliveries of these lanes, and of the lanes they were set aside or replayed in, the newest first."""
    found: dict[int, Row] = {}
    for lane in lanes:
        prefix = lane[:150].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        statement = (
            f"{_DELIVERY} WHERE (lane_key = :lane OR lane_key LIKE :aside) AND {TOLD} AND {_ORG}"
            " ORDER BY id DESC LIMIT :limit"
        )
        values = {"lane": lane, "aside": f"{prefix}:%", "org": org_id, "limit": limit}
        found |= {row["id"]: row for row in _rows(session, text(statement), values)}
    return sorted(found.values(), key=lambda row: -row["id"])[:limit]


def sends_in_lane(session: Session, lane: str, message_ids: Sequence[UUID], *, org_id: UUID | None) -> list[Row]:
    """The deliveries of a conversation whose work was to send one of these texts."""
    statement = text(
        f"""
        SELECT d.* FROM ({_DELIVERY} WHERE lane_key = :lane AND {TOLD} AND type = 'message.send' AND {_ORG}
                         ORDER BY id DESC LIMIT 500) d
        JOIN webhook_payloads p ON p.delivery_id = d.id AND p.org_id = d.org_id
        WHERE p.body ->> 'message_id' = ANY (:messages)
        """
    ).bindparams(bindparam("messages", type_=ARRAY(Text)))
    return _rows(session, statement, {"lane": lane, "org": org_id, "messages": [str(one) for one in message_ids]})


def payloads_of(session: Session, delivery_ids: Sequence[int]) -> dict[int, Row]:
    """What each of these deliveries said and was answered, by its id."""
    statement = _by_ids("SELECT delivery_id, body, answer FROM webhook_payloads WHERE delivery_id = ANY (:ids)")
    return {row["delivery_id"]: row for row in _rows(session, statement, {"ids": list(delivery_ids)})}


def attempts_of(session: Session, deliveries: Sequence[Row], *, limit: int) -> list[Row]:
    """Every try at these deliveries, the newest first."""
    statement = text(
        "SELECT delivery_id, org_id, number, process, started_at, ended_at, duration_ms, outcome, error_code, error"
        " FROM delivery_attempts WHERE org_id = ANY (:orgs) AND delivery_id = ANY (:ids)"
        " ORDER BY started_at DESC LIMIT :limit"
    ).bindparams(bindparam("orgs", type_=ARRAY(Uuid)), bindparam("ids", type_=ARRAY(BigInteger)))
    orgs = list({row["org_id"] for row in deliveries})
    return _rows(session, statement, {"orgs": orgs, "ids": [row["id"] for row in deliveries], "limit": limit})


def calls_with_id(session: Session, call_id: str, *, org_id: UUID | None) -> list[Row]:
    """The call of this id in each organization that has one (one look by index an organization)."""
    statement = (
        "SELECT c.* FROM organizations o CROSS JOIN LATERAL"
        " (SELECT * FROM calls WHERE org_id = o.id AND vapi_call_id = :call OFFSET 0) c"
        " WHERE CAST(:org AS uuid) IS NULL OR o.id = CAST(:org AS uuid)"
    )
    return _rows(session, text(statement), {"call": call_id, "org": org_id})


def calls_of_customer(session: Session, number: str, *, org_id: UUID | None, limit: int) -> list[Row]:
    """The customer's calls, the newest first."""
    statement = f"SELECT * FROM calls WHERE customer_number = :number AND {_ORG} ORDER BY created_at DESC LIMIT :limit"
    return _rows(session, text(statement), {"number": number, "org": org_id, "limit": limit})


def answers_of_call(session: Session, org_id: UUID, call_id: str, *, limit: int) -> list[Row]:
    """What was answered to the tool calls of one call, the newest first."""
    statement = (
        "SELECT org_id, call_id, tool_call_id, name, result, started_at, answered_at FROM tool_answers"
        " WHERE org_id = :org AND call_id = :call ORDER BY started_at DESC LIMIT :limit"
    )
    return _rows(session, text(statement), {"org": org_id, "call": call_id, "limit": limit})


def appointments_of_call(session: Session, org_id: UUID, call_id: str, *, limit: int) -> list[Row]:
    """Appointments that were made in one call."""
    statement = (
        "SELECT * FROM appointments WHERE org_id = :org AND call_id = :call ORDER BY created_at DESC LIMIT :limit"
    )
    return _rows(session, text(statement), {"org": org_id, "call": call_id, "limit": limit})


def appointments_of_customer(session: Session, phone: str, *, org_id: UUID | None, limit: int) -> list[Row]:
    """The customer's appointments, the newest first."""
    statement = f"SELECT * FROM appointments WHERE phone = :phone AND {_ORG} ORDER BY created_at DESC LIMIT :limit"
    return _rows(session, text(statement), {"phone": phone, "org": org_id, "limit": limit})


def appointments_with_ids(session: Session, ids: Sequence[UUID], *, org_id: UUID | None) -> list[Row]:
    """These appointments, in whichever organization."""
    statement = text(
        "SELECT a.* FROM organizations o CROSS JOIN LATERAL"
        " (SELECT * FROM appointments WHERE org_id = o.id AND id = ANY (:ids) OFFSET 0) a"
        " WHERE CAST(:org AS uuid) IS NULL OR o.id = CAST(:org AS uuid)"
    ).bindparams(bindparam("ids", type_=ARRAY(Uuid)))
    return _rows(session, statement, {"ids": list(ids), "org": org_id}) if ids else []


def messages_of_customer(session: Session, address: str, *, org_id: UUID | None, limit: int) -> list[Row]:
    """Texts to and from an address, the newest first."""
    statement = (
        f"SELECT * FROM messages WHERE remote_address = :address AND {_ORG} ORDER BY created_at DESC LIMIT :limit"
    )
    return _rows(session, text(statement), {"address": address, "org": org_id, "limit": limit})


def messages_with(session: Session, org_id: UUID, *, ids: Sequence[UUID] = (), sids: Sequence[str] = ()) -> list[Row]:
    """Texts of one organization by our id or Twilio's."""
    statement = text(
        "SELECT * FROM messages WHERE org_id = :org AND id = ANY (:ids)"
        " UNION SELECT * FROM messages WHERE org_id = :org AND provider_sid = ANY (:sids)"
    ).bindparams(bindparam("ids", type_=ARRAY(Uuid)), bindparam("sids", type_=ARRAY(Text)))
    return _rows(session, statement, {"org": org_id, "ids": list(ids), "sids": list(sids)})


def opt_outs_of(session: Session, address: str, *, org_id: UUID | None) -> list[Row]:
    """Whether the address wants texts, of each organization that it has told."""
    statement = (
        "SELECT c.* FROM organizations o CROSS JOIN LATERAL"
        " (SELECT * FROM opt_outs WHERE org_id = o.id AND address = :address OFFSET 0) c"
        " WHERE CAST(:org AS uuid) IS NULL OR o.id = CAST(:org AS uuid)"
    )
    return _rows(session, text(statement), {"address": address, "org": org_id})


def actions_on(session: Session, org_ids: Sequence[UUID], subjects: Sequence[str], *, limit: int) -> list[Row]:
    """What operators did to these subjects, the newest first."""
    statement = text(
        "SELECT org_id, actor, action, subject, at FROM operator_actions"
        " WHERE org_id = ANY (:orgs) AND subject = ANY (:subjects) ORDER BY at DESC LIMIT :limit"
    ).bindparams(bindparam("orgs", type_=ARRAY(Uuid)), bindparam("subjects", type_=ARRAY(Text)))
    return _rows(session, statement, {"orgs": list(org_ids), "subjects": list(subjects), "limit": limit})


def _by_ids(statement: str) -> TextClause:
    return text(statement).bindparams(bindparam("ids", type_=ARRAY(BigInteger)))


def _rows(session: Session, statement: TextClause, values: Row) -> list[Row]:
    return [dict(row) for row in session.execute(statement, values).mappings()]
