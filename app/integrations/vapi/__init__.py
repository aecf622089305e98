"""Vapi, which runs the calls: its webhooks in, its REST interface out.

Owns the names the rest of the house may use. Each file beneath has one job: what an operator sets
(``credentials``), who sent a message (``verification``), what a message is (``parsing``), what it
says (``facts``, ``tools``), asking Vapi (``client``), and what is configured
there (``settings``).
"""

from app.integrations.vapi.client import VapiCall, VapiClient
from app.integrations.vapi.credentials import HmacPlan, VapiCredentials
from app.integrations.vapi.facts import CallFacts, CallReport, CallStatus, call_of, report_of, status_of
from app.integrations.vapi.parsing import parse
from app.integrations.vapi.reconciling import report_event
from app.integrations.vapi.routing import routing_keys
from app.integrations.vapi.settings import SPEAKS_FIRST, VapiSettings, authentication_plan
from app.integrations.vapi.tools import ToolCall, tool_calls_of
from app.integrations.vapi.verification import verify
from app.integrations.vapi.words import answer_without_words, without_words

__all__ = [
    "SPEAKS_FIRST",
    "CallFacts",
    "CallReport",
    "CallStatus",
    "HmacPlan",
    "ToolCall",
    "VapiCall",
    "VapiClient",
    "VapiCredentials",
    "VapiSettings",
    "answer_without_words",
    "authentication_plan",
    "call_of",
    "parse",
    "report_event",
    "report_of",
    "routing_keys",
    "status_of",
    "tool_calls_of",
    "verify",
    "without_words",
]
