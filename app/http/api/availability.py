"""Free times for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.http.api import questions, schemas
from app.http.api.operations import Asked, operation
from app.services import free_times
from app.services.api_keys import READ


@operation(
    "GET",
    "/availability",
    scope=READ,
    query=questions.AvailabilityQuery,
    answer=schemas.Availability,
    problems=(502,),
)
def show_availability(asked: Asked) -> Mapping[str, Any]:
    """Free times, of our own appointments and of the connected calendar"""
    return free_times.free_times(
        asked.platform,
        asked.caller.org_id,
        first=asked.query.date,
        days=asked.query.days,
        service=asked.query.service,
        staff=asked.query.staff,
    )
