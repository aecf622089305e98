"""Plays one whole call over HTTP, as Vapi would, and looks at what came of it, as a person would.

Owns the script of the call and what each step must lead to. Knows the product only from outside: its
webhooks, its commands' JSON, and what it did to the outside world.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import requests

from sandbox.standins import RemoteWorld

ANSWER_SECONDS = 20.0
SETTLE_SECONDS = 45.0
LOOK_SECONDS = 0.3
LONGEST_LIST = "200"
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?(?:[+-]\d\d:\d\d|Z)?")
OWN_WORK = "voicedesk"
UNFINISHED = ("received", "processing", "retrying")

Found = dict[str, Any]


@dataclass
class Row:
    """One line of the table: what was done, what was answered, how long it took, and what is wrong with it."""

    event: str
    answer: str
    milliseconds: float | None = None
    fault: str | None = None


@dataclass
class Player:
    """One call of one customer to one organization. ``ask`` runs one of the product's commands."""

    webhook_url: str
    secret: str
    org_id: str
    calendar_id: str
    number: str
    customer: str
    assistant_id: str
    ask: Callable[..., Any]
    world: RemoteWorld
    call_id: str = field(default_factory=lambda: str(uuid4()))
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    rows: list[Row] = field(default_factory=list)

    def play(self) -> list[Row]:
        """The call from its first ring to the text that confirms the appointment. Never raises for the product."""
        assistant = self._post("assistant-request", {}, say=lambda body: f"assistant {body.get('assistantId')}")
        self._check(assistant.get("assistantId") == self.assistant_id, "another assistant than the organization's")
        self._post("status-update", {"status": "in-progress"}, title="status-update: in-progress")
        offered = ISO_TIME.findall(self._use_tool("check_availability", {"start": f"{self.began:%Y-%m-%d}"}))
        self._check(bool(offered), "no free time was offered")
        booked = ""
        if offered:
            self.rows[-1].answer = f"{len(offered)} free times, the first {_local(offered[0])}"
            wanted = {"start": offered[0], "name": "Ada Byron", "phone": self.customer, "notes": "first visit"}
            booked = self._use_tool("book_appointment", wanted)
            self._check(booked.startswith("Booked for"), "it was not booked")
        ended = {"status": "ended", "endedReason": "customer-ended-call"}
        self._post("status-update", ended, title="status-update: ended")
        self._post("end-of-call-report", _report(self.began))
        self._look_at_call()
        if booked:
            self._look_at_appointment(offered[0])
            self._look_at_text()
        self._look_at_deliveries()
        return self.rows

    def _use_tool(self, name: str, arguments: dict[str, str]) -> str:
        """One tool call in the three forms Vapi sends it in at once; returns the sentence."""
        function = {"name": name, "arguments": arguments}
        call = {"id": f"call_{uuid4().hex[:24]}", "type": "function", "function": function}
        listed = {"type": "function", "function": {"name": name}, "toolCall": call}
        fields = {"toolCallList": [call], "toolCalls": [call], "toolWithToolCallList": [listed]}
        body = self._post("tool-calls", fields, title=f"tool: {name}", say=_first_result)
        results = body.get("results") or []
        self._check([result.get("toolCallId") for result in results] == [call["id"]], "not one result for one call")
        self._check("\n" not in _first_result(body), "Vapi takes only one line")
        return _first_result(body)

    def _post(
        self,
        kind: str,
        fields: Found,
        *,
        title: str | None = None,
        say: Callable[[Found], str] = lambda _: "taken",
    ) -> Found:
        message = {"type": kind, "timestamp": int(time.time() * 1000), **self._envelope(), **fields}
        headers = {"X-Vapi-Secret": self.secret}
        row = Row(title or kind, "-")
        self.rows.append(row)
        began = time.monotonic()
        try:
            response = requests.post(
                self.webhook_url, json={"message": message}, headers=headers, timeout=ANSWER_SECONDS
            )
            body: Found = response.json()
        except requests.RequestException as error:
            row.fault = f"no answer to be understood ({type(error).__name__})"
            return {}
        row.milliseconds = (time.monotonic() - began) * 1000
        row.answer = say(body) if response.ok else f"HTTP {response.status_code}"
        self._check(response.status_code == 200, "Vapi takes only 200")
        return body

    def _envelope(self) -> Found:
        """What every message carries; ``call`` is a snapshot of the call's creation, its status included."""
        return {
            "call": {
                "id": self.call_id,
                "orgId": "7c1d5fd4-52a5-4c5f-8b56-5f2f1f0c9a11",
                "createdAt": _iso(self.began),
                "updatedAt": _iso(self.began),
                "type": "inboundPhoneCall",
                "status": "ringing",
                "phoneCallProvider": "twilio",
                "customer": {"number": self.customer},
            },
            "phoneNumber": {"number": self.number, "provider": "twilio"},
            "customer": {"number": self.customer},
        }

    def _look_at_call(self) -> None:
        self._await(
            "the call's record",
            lambda: [call for call in self._list("calls") if call["call_id"] == self.call_id],
            lambda call: call["status"] == "ended" and bool(call["transcript"]) and bool(call["summary"]),
            lambda call: f"{call['status']}: {call['ended_reason']}, cost {call['cost']}",
        )

    def _look_at_appointment(self, start: str) -> None:
        row = self._await(
            "the appointment",
            lambda: [row for row in self._list("appointments") if row["call_id"] == self.call_id],
            lambda row: row["status"] == "booked" and bool(row["google_event_id"]) and _same(row["starts_at"], start),
            lambda row: f"{row['status']}: {row['name']}, {_local(start)}",
        )
        self._await(
            "in Google Calendar",
            lambda: [event for event in self.world.events(self.calendar_id) if event["id"] == row["google_event_id"]],
            lambda event: event["status"] == "confirmed" and _same(event["start"]["dateTime"], start),
            lambda event: f"{event['status']}: {event.get('summary', '')}",
        )

    def _look_at_text(self) -> None:
        wanted = (self.call_id, "confirmation")
        row = self._await(
            "the text",
            lambda: [text for text in self._list("messages") if (text["call_id"], text["purpose"]) == wanted],
            lambda text: text["status"] == "delivered",
            lambda text: f"{text['status']}: {text['body']}",
        )
        self._await(
            "at Twilio",
            lambda: [text for text in self.world.messages() if text["body"] == row["body"]],
            lambda text: text["sid"] == row["sid"] and text["status"] == "delivered",
            lambda text: f"{text['status']}: {text['from']} to {text['to']}",
        )

    def _look_at_deliveries(self) -> None:
        """All that providers have sent since the call began is finished, and nothing has died.

        What the product has planned for itself is not asked for: some of it is due only later, as a net.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        counts: Counter[str] = Counter()
        mine: list[Found] = []
        while time.monotonic() < deadline:
            mine = [row for row in self._list("deliveries") if self._came_in_now(row)]
            counts = Counter(row["status"] for row in mine)
            if mine and not any(counts[status] for status in UNFINISHED):
                break
            time.sleep(LOOK_SECONDS)
        said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "none"
        self.rows.append(Row("all events", f"{said} (the slowest took)", _slowest(mine)))
        self._check(bool(mine) and not any(counts[status] for status in ("dead", *UNFINISHED)), "not all are finished")

    def _came_in_now(self, delivery: Found) -> bool:
        return delivery["provider"] != OWN_WORK and datetime.fromisoformat(delivery["received_at"]) >= self.began

    def _list(self, noun: str) -> list[Found]:
        rows: list[Found] = self.ask(noun, "list", "--org", self.org_id, "--limit", LONGEST_LIST, "--json")
        return rows

    def _await(
        self,
        title: str,
        look: Callable[[], list[Found]],
        is_done: Callable[[Found], bool],
        say: Callable[[Found], str],
    ) -> Found:
        """Look until there is exactly one and it is as it should be; the row says what is there at the end."""
        deadline = time.monotonic() + SETTLE_SECONDS
        found = look()
        while not (found and is_done(found[0])) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            found = look()
        if not found:
            self.rows.append(Row(title, "-", fault="there is none"))
            return {"google_event_id": None, "sid": None, "body": None}
        self.rows.append(Row(title, say(found[0]), _lived(found[0])))
        self._check(is_done(found[0]), f"not as it should be after {SETTLE_SECONDS:.0f} s")
        self._check(len(found) == 1, f"there are {len(found)}")
        return found[0]

    def _check(self, holds: bool, fault: str) -> None:
        """Note what is wrong with the last row; the first fault stays."""
        row = self.rows[-1]
        if not holds and row.fault is None:
            row.fault = fault


def _first_result(body: Found) -> str:
    results = body.get("results") or [{}]
    return str(results[0].get("result") or results[0].get("error") or "")


def _lived(row: Found) -> float | None:
    """From a text's creation to its last change, in milliseconds; of other rows that says nothing."""
    if "provider_status" not in row:
        return None
    return _milliseconds(row["created_at"], row["updated_at"])


def _slowest(deliveries: list[Found]) -> float | None:
    spans = [_milliseconds(row["received_at"], row["finished_at"]) for row in deliveries if row["finished_at"]]
    return max(spans, default=None)


def _milliseconds(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)) / timedelta(milliseconds=1)


def _same(one: str, other: str) -> bool:
    return datetime.fromisoformat(one) == datetime.fromisoformat(other)


def _local(time_said: str) -> str:
    return f"{datetime.fromisoformat(time_said):%A %d %B at %H:%M}"


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _report(began: datetime) -> Found:
    transcript = "AI: Demo Salon, how can I help?\nUser: I'd like an appointment.\nAI: Booked. Goodbye!"
    summary = "The caller booked an appointment."
    recording = "https://recordings.example/demo.wav"
    return {
        "endedReason": "customer-ended-call",
        "startedAt": _iso(began),
        "endedAt": _iso(began + timedelta(seconds=64)),
        "durationSeconds": 64.0,
        "cost": 0.0712,
        "transcript": transcript,
        "summary": summary,
        "recordingUrl": recording,
        "analysis": {"summary": summary, "successEvaluation": "true"},
        "artifact": {"messages": [], "transcript": transcript, "recordingUrl": recording},
    }
