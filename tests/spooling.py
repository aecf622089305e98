"""What tests of the spool share: an event to send, and what has been stored."""

from __future__ import annotations

from sqlalchemy import text


def status_update(business, client, call_id: str, status: str = "in-progress", **more):
    message = {"type": "status-update", "status": status, "call": {"id": call_id}, **more}
    return business.vapi(client, message)


def rows(platform, columns: str, *, of: str = "webhook_delivery_log", order: str = "id") -> list[tuple]:
    with platform.database.transaction(system=True) as session:
        return [tuple(row) for row in session.execute(text(f"SELECT {columns} FROM {of} ORDER BY {order}"))]
