"""What happens to a message after Twilio has taken it: its statuses, and the callbacks that report them.

Owns the times, the order and the signature of callbacks. A callback is signed by Twilio's own library
over exactly the URL that is requested, its query string included.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urldefrag

import requests
from twilio.request_validator import RequestValidator

from sandbox.standins.state import State, now

DEFAULT_SETTINGS: dict[str, Any] = {
    "statuses": ["sent", "delivered"],  # after queued, for SMS
    "whatsapp_statuses": ["sent", "delivered", "read"],
    "callback_delay": 0.05,  # seconds before the first callback and between them
    "shuffle": False,  # report the statuses in any order
    "duplicates": 0,  # how often each callback is repeated
    "listing_delay": 0.0,  # seconds until a new message shows up in the list
    "sender_rate": None,  # messages of one sender that are taken within any second; more are refused with 429
    "windows_open": True,  # whether WhatsApp recipients have written within 24 hours, unless one is set apart
}
RANK = {"accepted": 0, "queued": 1, "sending": 2, "sent": 3, "delivered": 4, "undelivered": 4, "failed": 4, "read": 5}
CONNECT_SECONDS, READ_SECONDS = 5.0, 15.0  # the defaults of Twilio's connection overrides
CALLBACK_THREADS = 8
OUTSIDE_WINDOW = 63016


class Deliveries:
    """Moves messages through their statuses on background threads and calls back."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._agenda = Agenda()

    def settings(self, branch: dict[str, Any]) -> dict[str, Any]:
        """The settings in force."""
        changed: dict[str, Any] = branch.get("settings", {})
        return DEFAULT_SETTINGS | changed

    def listing(self) -> list[dict[str, Any]]:
        """Every callback made: sid, status, url, answer (HTTP status, None for no connection), attempts, at."""
        with self._state.reading("twilio") as branch:
            return list(branch.get("callbacks", []))

    def resume(self) -> None:
        """Go on with messages whose delivery ended with an earlier process."""
        with self._state.reading("twilio") as branch:
            sids = list(branch.get("messages", {}))
        for sid in sids:
            self.plan(sid)

    def plan(self, sid: str) -> None:
        """Set the dates of all statuses that the message has not reached yet."""
        with self._state.reading("twilio") as branch:
            message = branch["messages"][sid]
            settings = self.settings(branch)
            coming = [s for s in self._course(message, branch, settings) if RANK[s] > RANK[message["status"]]]
        if settings["shuffle"]:
            random.shuffle(coming)
        steps = [status for status in coming for _ in range(1 + settings["duplicates"])]
        self._next(sid, steps, settings["callback_delay"])

    def close(self) -> None:
        """Stop; callbacks that are not made yet are not made."""
        self._agenda.close()

    def _next(self, sid: str, steps: list[str], delay: float) -> None:
        """One step at a time, so that callbacks keep their order unless they are shuffled on purpose."""
        if steps:
            self._agenda.add(delay, lambda: self._step(sid, steps, delay))

    def _step(self, sid: str, steps: list[str], delay: float) -> None:
        with self._state.changing("twilio") as branch:
            message = branch.get("messages", {}).get(sid)
            if message is None:  # the world was reset meanwhile
                return
            _advance(message, steps[0], self._failure(message, branch))
            token = branch["accounts"][message["account_sid"]]["token"]
            message = dict(message)
        if message["status_callback"]:
            self._call_back(message, steps[0], token)
        self._next(sid, steps[1:], delay)

    def _course(self, message: dict[str, Any], branch: dict[str, Any], settings: dict[str, Any]) -> list[str]:
        whatsapp = message["to"].startswith("whatsapp:")
        failure = self._failure(message, branch)
        if failure is None:
            course: list[str] = settings["whatsapp_statuses" if whatsapp else "statuses"]
            return course
        # 30xxx is what a carrier reports after the message has left, the rest stops it before.
        return ["sent", "undelivered"] if 30000 <= failure < 31000 else ["failed"]

    def _failure(self, message: dict[str, Any], branch: dict[str, Any]) -> int | None:
        """The error code the message ends with, if it does."""
        recipient = branch.get("recipients", {}).get(message["to"], {})
        if recipient.get("fail"):
            return int(recipient["fail"])
        window_open = recipient.get("window_open")
        if window_open is None:
            window_open = self.settings(branch)["windows_open"]
        outside = message["to"].startswith("whatsapp:") and not window_open and not message["template"]
        return OUTSIDE_WINDOW if outside else None

    def _call_back(self, message: dict[str, Any], status: str, token: str) -> None:
        """POST the status as Twilio does: by default a second attempt only when it could not connect.

        The URL's fragment may ask for more (``#rc=3&rp=5xx,ct``: twilio.com/docs, connection overrides).
        """
        target, fragment = urldefrag(message["status_callback"])
        overrides = parse_qs(fragment)
        retries = min(5, int(overrides.get("rc", ["1"])[0]))
        policy = set(overrides.get("rp", ["ct"])[0].split(","))
        prepared = requests.Request("POST", target, data=_parameters(message, status)).prepare()
        signature = RequestValidator(token).compute_signature(prepared.url, _parameters(message, status))
        prepared.headers["X-Twilio-Signature"] = signature
        prepared.headers["I-Twilio-Idempotency-Token"] = str(uuid.uuid4())
        prepared.headers["User-Agent"] = "TwilioProxy/1.1"
        attempts, again = 0, True
        while again and attempts <= retries:
            answer, trouble = _post(prepared)
            attempts += 1
            again = trouble is not None and bool(policy & {trouble, "all"})
        made = {
            "sid": message["sid"],
            "status": status,
            "url": message["status_callback"],
            "answer": answer,
            "attempts": attempts,
            "at": now().isoformat(),
        }
        with self._state.changing("twilio") as branch:
            if message["sid"] in branch.get("messages", {}):  # the world may have been reset meanwhile
                branch.setdefault("callbacks", []).append(made)


class Agenda:
    """Runs functions at their times on a few threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._closed = False
        self._pool = ThreadPoolExecutor(CALLBACK_THREADS, thread_name_prefix="twilio-callback")
        threading.Thread(target=self._watch, name="twilio-agenda", daemon=True).start()

    def add(self, delay: float, action: Callable[[], None]) -> None:
        """Run ``action`` in ``delay`` seconds."""
        with self._changed:
            self._count += 1  # entries of one moment keep their order, and functions are not compared
            heapq.heappush(self._entries, (time.monotonic() + delay, self._count, action))
            self._changed.notify()

    def close(self) -> None:
        """Run nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                if not self._entries:
                    self._changed.wait()
                elif (wait := self._entries[0][0] - time.monotonic()) > 0:
                    self._changed.wait(wait)
                else:
                    self._pool.submit(heapq.heappop(self._entries)[2]).add_done_callback(_show_trouble)


def _show_trouble(done: Future[None]) -> None:
    """A fault of our own must be seen: nobody asks these futures for their result."""
    if not done.cancelled() and (error := done.exception()) is not None:
        traceback.print_exception(error)


def _advance(message: dict[str, Any], status: str, failure: int | None) -> None:
    """Move the message forward; a status reported late does not move it back."""
    if RANK[status] <= RANK[message["status"]]:
        return
    message["status"] = status
    message["updated_at"] = now().isoformat()
    if status in ("failed", "undelivered"):
        message["error_code"] = failure
    if status != "queued":
        message["from"] = message["from"] or message["pool"][0]
        message["sent_at"] = message["sent_at"] or message["updated_at"]


def _parameters(message: dict[str, Any], status: str) -> dict[str, str]:
    """The form of a status callback; WhatsApp's has more, and its ``read`` lacks ChannelInstallSid."""
    parameters = {
        "MessageSid": message["sid"],
        "SmsSid": message["sid"],
        "MessageStatus": status,
        "SmsStatus": status,
        "AccountSid": message["account_sid"],
        "From": message["from"] or "",
        "To": message["to"],
        "ApiVersion": "2010-04-01",
    }
    if message["messaging_service_sid"]:
        parameters["MessagingServiceSid"] = message["messaging_service_sid"]
    if status in ("failed", "undelivered"):
        parameters["ErrorCode"] = str(message["error_code"])
    if message["to"].startswith("whatsapp:"):
        parameters["ChannelPrefix"] = "whatsapp"
        parameters["ChannelToAddress"] = message["to"].removeprefix("whatsapp:")[:-4] + "XXXX"
        if status != "read":
            parameters["ChannelInstallSid"] = "XE" + message["account_sid"][2:]
        if status in ("delivered", "read"):
            parameters["EventType"] = status.upper()
    elif status == "delivered":
        parameters["RawDlrDoneDate"] = now().strftime("%y%m%d%H%M")
    return parameters


def _post(prepared: requests.PreparedRequest) -> tuple[int | None, str | None]:
    """The answer's status, and in the words of Twilio's retry policies what went wrong (None: nothing)."""
    with requests.Session() as session:
        try:
            status = session.send(
                prepared, timeout=(CONNECT_SECONDS, READ_SECONDS), allow_redirects=False, proxies={}
            ).status_code
        except requests.ConnectTimeout:
            return None, "ct"
        except requests.ConnectionError as error:
            return None, "ct" if "NewConnectionError" in repr(error) else "rt"
        except requests.RequestException:
            return None, "rt"
    return status, "5xx" if status >= 500 else "4xx" if status >= 400 else None
