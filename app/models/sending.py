"""What is asked of the database around a request to Twilio: each question is a transaction of its own, in one message.

Owns the three statements. What else there is to know of texts, and their rows, is in ``messages.py``.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text

from app.database.at_once import Asks
from app.models.aliases import ALIASES
from app.models.inbox import STORE_OWN_WORK, NewDelivery, values_of
from app.models.lanes import IN_LEASE
from app.models.messages import RANK, Message, MessageStatus

# By name: a release that adds a column runs its migration while this one still sends.
_COLUMNS = ", ".join(f"m.{column.name}" for column in Message.__table__.columns)
_READ_PLANNED = text(
    f"SELECT {_COLUMNS}, (SELECT sealed FROM house_keys WHERE name = :aliases) AS sealed"
    " FROM messages m WHERE org_id = :org AND id = :id AND status = 'planned'"
)

# All that has to be so at this moment, in one statement: nobody has begun, the lane is ours, the recipient wants it.
_BEGIN_SENDING = text(
    f"""
    UPDATE messages m SET status = 'sending', sending_since = now(), sends = m.sends + 1, lookups = 0,
        looked_up_at = NULL, content_sid = NULL
    WHERE m.org_id = :org AND m.id = :id AND m.status = 'planned'
      AND (SELECT {IN_LEASE} FROM lanes l WHERE l.org_id = :org AND l.lane_key = :lane AND l.token = :token)
      AND NOT coalesce((SELECT opted_out FROM opt_outs WHERE org_id = :org AND address = m.remote_address),
                       (SELECT opted_out FROM opt_outs WHERE org_id = :org AND address = :alias), false)
    RETURNING m.id
    """
)

# As ``Message.move`` would to ``sent``: only what is not there yet is moved.
_KEEP_SENT = text(
    f"""
    UPDATE messages m SET provider_sid = coalesce(m.provider_sid, :sid),
        own_address = coalesce(m.own_address, :sender),
        status = CASE WHEN b.moves THEN 'sent' ELSE m.status END,
        provider_status = CASE WHEN b.moves THEN :said ELSE coalesce(m.provider_status, :said) END,
        error_code = CASE WHEN NOT b.moves THEN m.error_code END,
        error = CASE WHEN NOT b.moves THEN m.error END,
        updated_at = now()
    FROM (SELECT id, status = ANY (CAST(:before AS text[])) AS moves FROM messages
          WHERE org_id = :org AND id = :id FOR UPDATE) b
    WHERE m.org_id = :org AND m.id = b.id;
    {STORE_OWN_WORK}
    """
)
_BEFORE_SENT = [status for status, rank in RANK.items() if rank < RANK[MessageStatus.SENT]]


def read_planned(asks: Asks, org_id: UUID, message_id: UUID) -> tuple[Message, bytes | None] | None:
    """The text as it is now, detached, if it is still to be sent, which may change at once; and the sealed key of
    aliases (``aliases.py``), if there is one."""
    rows = asks.execute(_READ_PLANNED, {"org": org_id, "id": message_id, "aliases": ALIASES}).all()
    if not rows:
        return None
    columns = rows[0]._asdict()
    sealed = columns.pop("sealed")
    return Message(**columns), bytes(sealed) if sealed is not None else None


def begin_sending(asks: Asks, org_id: UUID, message_id: UUID, *, lane_key: str, token: int, alias: str | None) -> bool:
    """Mark a text that goes out as it is as being sent, if nothing at all speaks against it.

    False when something does: the lane has passed on, the recipient (or, if that is all that is known, their ``alias``)
    has opted out, somebody was at it. Safe to repeat: the second time says False.
    """
    given = {"org": org_id, "id": message_id, "lane": lane_key, "token": token, "alias": alias}
    return bool(asks.execute(_BEGIN_SENDING, given).all())


def keep_sent(
    asks: Asks, org_id: UUID, message_id: UUID, *, sid: str, sender: str | None, said: str, check: NewDelivery
) -> None:
    """Keep what the provider calls a text that it has taken, and ``said`` of it, and store the ``check`` with it.

    The first SID stays, and so does a status that is further on. Repeated, it stores a second check.
    """
    given = {"org": org_id, "id": message_id, "sid": sid, "sender": sender, "said": said, "before": _BEFORE_SENT}
    asks.execute(_KEEP_SENT, {**given, **values_of([check])})
