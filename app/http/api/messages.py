"""Texts for programs: looked up, and sent, once for each Idempotency-Key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import url_for

from app.http.api import questions, schemas
from app.http.api.operations import Answered, Asked, operation
from app.services import api_messages, api_reads
from app.services.api_keys import READ, WRITE


@operation("GET", "/messages", scope=READ, query=questions.MessagesQuery, answer=schemas.MessagePage)
def list_messages(asked: Asked) -> Mapping[str, Any]:
    """Texts in and out, the newest first"""
    equal = asked.query.model_dump(include={"status", "direction", "channel"})
    return api_reads.page(asked.platform, api_reads.MESSAGES, asked.caller.org_id, equal=equal, **asked.stretch)


@operation("GET", "/messages/<uuid:message_id>", scope=READ, answer=schemas.Message, problems=(404,))
def show_message(asked: Asked, message_id: UUID) -> Mapping[str, Any]:
    """One text"""
    return api_reads.one(asked.platform, api_reads.MESSAGES, asked.caller.org_id, message_id)


@operation(
    "POST",
    "/messages",
    scope=WRITE,
    headers=questions.IdempotencyHeaders,
    body=questions.NewMessage,
    answer=schemas.Message,
    statuses=(202, 200),
    problems=(400, 409, 413, 415),
)
def send_message(asked: Asked) -> Answered:
    """Send a text: 202 when it is planned, 200 with the same one when it was planned for this key before"""
    planned = api_messages.plan_once(
        asked.platform,
        asked.caller.org_id,
        to=asked.body.to,
        body=asked.body.body,
        channel=asked.body.channel,
        idempotency_key=asked.headers.idempotency_key,
        actor=asked.actor,
    )
    where = url_for("api.show_message", message_id=planned.message["id"])
    return Answered(planned.message, 202 if planned.is_new else 200, {"Location": where})
