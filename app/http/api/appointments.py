"""Appointments for programs: looked up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from app.http.api import questions, schemas
from app.http.api.operations import Asked, operation
from app.services import api_reads
from app.services.api_keys import READ


@operation("GET", "/appointments", scope=READ, query=questions.AppointmentsQuery, answer=schemas.AppointmentPage)
def list_appointments(asked: Asked) -> Mapping[str, Any]:
    """Appointments, the latest first"""
    equal = {"status": asked.query.status}
    return api_reads.page(asked.platform, api_reads.APPOINTMENTS, asked.caller.org_id, equal=equal, **asked.stretch)


@operation("GET", "/appointments/<uuid:appointment_id>", scope=READ, answer=schemas.Appointment, problems=(404,))
def show_appointment(asked: Asked, appointment_id: UUID) -> Mapping[str, Any]:
    """One appointment"""
    return api_reads.one(asked.platform, api_reads.APPOINTMENTS, asked.caller.org_id, appointment_id)
