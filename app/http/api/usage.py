"""What an organization uses in a month, for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.http.api import questions, schemas
from app.http.api.operations import Asked, operation
from app.services import usage
from app.services.api_keys import READ


@operation("GET", "/usage", scope=READ, query=questions.UsageQuery, answer=schemas.Usage)
def show_usage(asked: Asked) -> Mapping[str, Any]:
    """Calls, minutes, texts and cost of a month"""
    return usage.of_tenant(asked.platform, asked.caller.org_id, month=asked.query.month).row()
