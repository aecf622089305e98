"""Where what people said stands in rows, and its removal: one small piece each, in the caller's transaction.

Owns the statements of retention. Rows stay, with their ids, times and costs; ``words_removed_at`` says that
they have been emptied. What somebody else holds locked is left for the next time. Runs as the system role.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Text, Uuid, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session

from app.models.calls import WORDS_OF_CALL
from app.models.deliveries import LISTED
from app.models.organizations import Organization

# Nothing is kept for less than a day here: what failed can be replayed for so long, also where nothing is stored.
_OLD = "now() - greatest(o.keep_words_days, 1) * interval '1 day'"
# A text that is still to be sent, or compared with what Twilio has, needs its words.
_SETTLED = "status NOT IN ('planned', 'sending')"
# One that has arrived is never sent again.
_ARRIVED = "status IN ('received', 'delivered', 'read')"

_CALLS = text(
    f"""
    WITH old AS (
        SELECT c.id, c.org_id FROM organizations o CROSS JOIN LATERAL (
            SELECT id, org_id FROM calls
            WHERE org_id = o.id AND words_removed_at IS NULL AND created_at < {_OLD}
            ORDER BY created_at LIMIT :most FOR UPDATE SKIP LOCKED
        ) c LIMIT :most
    )
    UPDATE calls c SET {", ".join(f"{name} = NULL" for name in WORDS_OF_CALL)}, words_removed_at = now()
    FROM old WHERE c.org_id = old.org_id AND c.id = old.id RETURNING 1
    """
)
_TEXTS = text(
    f"""
    WITH old AS (
        SELECT m.id, m.org_id FROM organizations o CROSS JOIN LATERAL (
            SELECT id, org_id FROM messages
            WHERE org_id = o.id AND words_removed_at IS NULL AND created_at < {_OLD} AND {_SETTLED}
            ORDER BY created_at LIMIT :most FOR UPDATE SKIP LOCKED
        ) m LIMIT :most
    )
    UPDATE messages m SET body = '', media = '[]', words_removed_at = now()
    FROM old WHERE m.org_id = old.org_id AND m.id = old.id RETURNING 1
    """
)
# An answer stays as an empty one: the same question asked again does nothing twice.
_ANSWERS = text(
    f"""
    WITH old AS (
        SELECT a.org_id, a.call_id, a.tool_call_id FROM organizations o CROSS JOIN LATERAL (
            SELECT org_id, call_id, tool_call_id FROM tool_answers
            WHERE org_id = o.id AND result <> '' AND started_at < {_OLD} LIMIT :most FOR UPDATE SKIP LOCKED
        ) a WHERE o.keep_words_days < :longest LIMIT :most
    )
    UPDATE tool_answers a SET result = '' FROM old
    WHERE (a.org_id, a.call_id, a.tool_call_id) = (old.org_id, old.call_id, old.tool_call_id) RETURNING 1
    """
)
_SAID = text(
    f"""
    SELECT d.id, d.provider, d.type, p.body, p.raw IS NOT NULL AS is_raw, p.answer
    FROM organizations o JOIN webhook_delivery_log d ON d.org_id = o.id
    JOIN webhook_payloads p ON p.org_id = d.org_id AND p.delivery_id = d.id AND p.words_removed_at IS NULL
    WHERE o.id = :org AND d.id > :after AND d.finished_at < {_OLD}
    ORDER BY d.id LIMIT :most FOR UPDATE OF d SKIP LOCKED
    """
)
_EMPTY_PAYLOAD = text(
    "UPDATE webhook_payloads SET body = :body, answer = :answer, raw = NULL, words_removed_at = now()"
    " WHERE org_id = :org AND delivery_id = :id"
).bindparams(bindparam("body", type_=JSONB(none_as_null=True)), bindparam("answer", type_=JSONB(none_as_null=True)))
_EMPTY_TEXTS = text(
    f"UPDATE messages SET body = '', media = '[]', words_removed_at = now() WHERE org_id = :org AND {_ARRIVED}"
    " AND words_removed_at IS NULL AND (id = ANY (:ids) OR provider_sid = ANY (:sids))"
).bindparams(bindparam("ids", type_=ARRAY(Uuid)), bindparam("sids", type_=ARRAY(Text)))


@dataclass(frozen=True, slots=True)
class Said:
    """What a finished delivery said and was answered."""

    id: int
    provider: str
    type: str
    body: dict[str, Any] | None
    is_raw: bool
    answer: dict[str, Any] | None


def empty_calls(session: Session, *, most: int) -> int:
    """Transcripts, summaries, recording links and what was extracted of calls that are old enough; how many calls."""
    return len(session.execute(_CALLS, {"most": most}).all())


def empty_texts(session: Session, *, most: int) -> int:
    """Texts that are old enough; how many."""
    return len(session.execute(_TEXTS, {"most": most}).all())


def empty_answers(session: Session, *, most: int, longest_days: int) -> int:
    """What was answered to callers long enough ago; how many. None is kept for ``longest_days`` anyway."""
    return len(session.execute(_ANSWERS, {"most": most, "longest": longest_days}).all())


def list_shorter(session: Session, *, than_days: float) -> list[UUID]:
    """The organizations that keep words for less than that."""
    return list(
        session.scalars(
            select(Organization.id).where(Organization.keep_words_days < than_days).order_by(Organization.id)
        )
    )


def lock_said(session: Session, org_id: UUID, *, after: int, most: int) -> list[Said]:
    """What the organization's next finished deliveries said, of those that are old enough, in order of their ids."""
    rows = session.execute(_SAID, {"org": org_id, "after": after, "most": most})
    return [Said(**row._mapping) for row in rows]


def empty_payload(
    session: Session, org_id: UUID, delivery_id: int, *, body: dict[str, Any] | None, answer: dict[str, Any] | None
) -> None:
    """Keep only this of what a delivery said."""
    session.execute(_EMPTY_PAYLOAD, {"org": org_id, "id": delivery_id, "body": body, "answer": answer})


def empty_arrived(session: Session, org_id: UUID, *, ids: Sequence[UUID], sids: Sequence[str]) -> None:
    """Texts, by our id or Twilio's, if they have arrived."""
    session.execute(_EMPTY_TEXTS, {"org": org_id, "ids": list(ids), "sids": list(sids)})


def empty_answers_of(session: Session, org_id: UUID, call_id: str) -> None:
    """What was answered in a call."""
    session.execute(
        text("UPDATE tool_answers SET result = '' WHERE org_id = :org AND call_id = :call AND result <> ''"),
        {"org": org_id, "call": call_id},
    )


def count_old(session: Session, *, longest_days: int) -> dict[str, int]:
    """How many calls, texts and answers would be emptied now. Empties nothing."""
    row = session.execute(
        text(
            f"""
            SELECT
                (SELECT count(*) FROM organizations o JOIN calls c ON c.org_id = o.id
                 WHERE c.words_removed_at IS NULL AND c.created_at < {_OLD}) AS call_words,
                (SELECT count(*) FROM organizations o JOIN messages m ON m.org_id = o.id
                 WHERE m.words_removed_at IS NULL AND m.created_at < {_OLD} AND {_SETTLED}) AS text_words,
                (SELECT count(*) FROM organizations o JOIN tool_answers a ON a.org_id = o.id
                 WHERE a.result <> '' AND a.started_at < {_OLD} AND o.keep_words_days < :longest) AS answer_words,
                (SELECT count(*) FROM organizations o JOIN webhook_delivery_log d ON d.org_id = o.id
                 JOIN webhook_payloads p ON p.org_id = d.org_id AND p.delivery_id = d.id
                 WHERE p.words_removed_at IS NULL AND d.finished_at < {_OLD} AND d.{LISTED}
                 AND o.keep_words_days < :longest)
                AS payload_words
            """
        ),
        {"longest": longest_days},
    ).one()
    return dict(row._mapping)
