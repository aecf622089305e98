"""Plays one whole call over HTTP, as Vapi would, and looks at what came of it, as a person would.

Owns the script of the call and what each step must lead to. Knows the product only from outside:
its webhooks, and its commands' JSON.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import requests

ANSWER_SECONDS = 20.0
SETTLE_SECONDS = 45.0
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?(?:[+-]\d\d:\d\d|Z)?")


@dataclass
class Row:
    """One line of the table: what was done, what was answered, how long it took, and what is wrong with it."""

    event: str
    answer: str
    milliseconds: float | None = None
    fault: str | None = None


@dataclass
class Player:
    """One call of one customer to one organization."""

    base_url: str
    token: str
    secret: str
    number: str
    customer: str
    ask: Callable[..., Any]
    call_id: str = field(default_factory=lambda: str(uuid4()))
    rows: list[Row] = field(default_factory=list)

    def play(self) -> list[Row]:
        """The call from its first ring to the text that confirms the appointment."""
        self._post("assistant-request", {}, want=lambda body: body.get("assistantId"))
        self._post("status-update", {"status": "in-progress"}, want=lambda body: "stored")
        free = self._tool("check_availability", {"start": time.strftime("%Y-%m-%d")})
        times = ISO_TIME.findall(free)
        if not times:
            self.rows[-1].fault = "no free time was offered"
            return self.rows
        said = self._tool(
            "book_appointment", {"start": times[0], "name": "Ada Byron", "phone": self.customer, "notes": "first visit"}
        )
        if not said.startswith("Booked"):
            self.rows[-1].fault = "it was not booked"
        ended = {"status": "ended", "endedReason": "customer-ended-call"}
        self._post("status-update", ended, want=lambda body: "stored")
        self._post("end-of-call-report", _report(), want=lambda body: "stored")
        self._look_at_results()
        return self.rows

    def _post(self, kind: str, fields: dict[str, Any], *, want: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        message = {
            "type": kind,
            "timestamp": int(time.time() * 1000),
            "call": {"id": self.call_id, "type": "inboundPhoneCall", "status": "ringing"},
            "phoneNumber": {"number": self.number},
            "customer": {"number": self.customer},
            **fields,
        }
        began = time.monotonic()
        try:
            response = requests.post(
                f"{self.base_url}/webhooks/vapi/{self.token}",
                json={"message": message},
                headers={"X-Vapi-Secret": self.secret},
                timeout=ANSWER_SECONDS,
            )
        except requests.RequestException as error:
            self.rows.append(Row(kind, "-", fault=type(error).__name__))
            return {}
        row = Row(kind, f"HTTP {response.status_code}", (time.monotonic() - began) * 1000)
        self.rows.append(row)
        if response.status_code != 200:
            row.fault = f"HTTP {response.status_code}"
            return {}
        body: dict[str, Any] = response.json()
        wanted = want(body)
        row.answer = str(wanted)
        if not wanted:
            row.fault = "the answer says nothing"
        return body

    def _tool(self, name: str, arguments: dict[str, str]) -> str:
        call = {
            "id": f"call_{uuid4().hex[:12]}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        body = self._post("tool-calls", {"toolCallList": [call]}, want=_first_result)
        self.rows[-1].event = f"tool: {name}"
        return _first_result(body)

    def _look_at_results(self) -> None:
        began = time.monotonic()
        self._await(
            "the call's record",
            "calls",
            lambda call: call["call_id"] == self.call_id,
            lambda call: call["status"] == "ended" and bool(call["transcript"]),
            lambda call: f"{call['status']}, {call['ended_reason']}, cost {call['cost']}",
            began,
        )
        self._await(
            "the appointment",
            "appointments",
            lambda row: row["call_id"] == self.call_id,
            lambda row: row["status"] == "booked" and bool(row["google_event_id"]),
            lambda row: f"{row['name']}, {row['starts_at']}, {row['status']}, in the calendar",
            began,
        )
        self._await(
            "the text",
            "messages",
            lambda row: row["call_id"] == self.call_id and row["purpose"] == "confirmation",
            lambda row: row["status"] == "delivered",
            lambda row: f"{row['status']}: {row['body']}",
            began,
        )

    def _await(
        self,
        title: str,
        noun: str,
        mine: Callable[[dict[str, Any]], bool],
        done: Callable[[dict[str, Any]], bool],
        say: Callable[[dict[str, Any]], str],
        began: float,
    ) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        found: list[dict[str, Any]] = []
        while time.monotonic() < deadline:
            found = [row for row in self.ask(noun, "list", "--json") if mine(row)]
            if found and done(found[0]):
                break
            time.sleep(0.3)
        if not found:
            self.rows.append(Row(title, "-", fault="there is none"))
            return
        fault = None if done(found[0]) else f"not as it should be after {SETTLE_SECONDS:.0f} s"
        if len(found) > 1:
            fault = f"there are {len(found)}"
        self.rows.append(Row(title, say(found[0]), (time.monotonic() - began) * 1000, fault))


def _first_result(body: dict[str, Any]) -> str:
    results = body.get("results") or [{}]
    return str(results[0].get("result") or "")


def _report() -> dict[str, Any]:
    transcript = "AI: Demo Salon, how can I help?\nUser: I'd like an appointment.\nAI: Booked. Goodbye!"
    return {
        "endedReason": "customer-ended-call",
        "startedAt": "2026-01-05T10:00:00.000Z",
        "endedAt": "2026-01-05T10:01:04.000Z",
        "cost": 0.0712,
        "durationSeconds": 64.0,
        "transcript": transcript,
        "recordingUrl": "https://recordings.example/demo.wav",
        "analysis": {"summary": "The caller booked an appointment.", "successEvaluation": "true"},
        "artifact": {"messages": []},
    }
