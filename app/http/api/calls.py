"""Calls for programs: looked up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from app.http.api import questions, schemas
from app.http.api.operations import Asked, operation
from app.services import api_reads
from app.services.api_keys import READ


@operation("GET", "/calls", scope=READ, query=questions.CallsQuery, answer=schemas.CallPage)
def list_calls(asked: Asked) -> Mapping[str, Any]:
    """Calls, the newest first"""
    equal = {"status": asked.query.status, "vapi_call_id": asked.query.call_id}
    return api_reads.page(asked.platform, api_reads.CALLS, asked.caller.org_id, equal=equal, **asked.stretch)


@operation("GET", "/calls/<uuid:call_id>", scope=READ, answer=schemas.Call, problems=(404,))
def show_call(asked: Asked, call_id: UUID) -> Mapping[str, Any]:
    """One call"""
    return api_reads.one(asked.platform, api_reads.CALLS, asked.caller.org_id, call_id)
