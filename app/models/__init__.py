"""Rows, and the only queries on them.

One file a noun: the table and the functions that read or write it, each taking an open session.
Nothing here begins or ends a transaction, and nothing here calls anybody outside.
"""

from app.models.alerts import Alert
from app.models.aliases import HouseKey
from app.models.appointments import Appointment
from app.models.base import Base
from app.models.busy_periods import BusyPeriod
from app.models.calendar_syncs import CalendarSync
from app.models.calendars import CalendarChannel
from app.models.calls import Call
from app.models.closures import Closure
from app.models.deliveries import Attempt, Delivery, Payload
from app.models.forward_targets import ForwardTarget
from app.models.integrations import Integration
from app.models.lanes import Lane
from app.models.ledger import LedgerEntry
from app.models.messages import Message, OptOut
from app.models.operations import OperatorAction, Singleton
from app.models.organizations import ApiKey, Organization
from app.models.processed_events import ProcessedWebhookEvent
from app.models.quarantine import QuarantinedWebhook, VerificationRefusal
from app.models.quotas import QuotaOverrun
from app.models.reconciliations import Reconciliation
from app.models.resources import Resource, ResourceService
from app.models.routing import RoutingKey
from app.models.services_offered import Service
from app.models.text_dialogues import TextDialogue
from app.models.tool_answers import ToolAnswer
from app.models.usage import UsageLimit

__all__ = [
    "Alert",
    "ApiKey",
    "Appointment",
    "Attempt",
    "Base",
    "BusyPeriod",
    "CalendarChannel",
    "CalendarSync",
    "Call",
    "Closure",
    "Delivery",
    "ForwardTarget",
    "HouseKey",
    "Integration",
    "Lane",
    "LedgerEntry",
    "Message",
    "OperatorAction",
    "OptOut",
    "Organization",
    "Payload",
    "ProcessedWebhookEvent",
    "QuarantinedWebhook",
    "QuotaOverrun",
    "Reconciliation",
    "Resource",
    "ResourceService",
    "Service",
    "Singleton",
    "RoutingKey",
    "TextDialogue",
    "ToolAnswer",
    "VerificationRefusal",
    "UsageLimit",
]
