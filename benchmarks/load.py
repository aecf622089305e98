"""The load: signed webhooks in a file, sent by wrk over kept connections. Owns no server and judges nothing."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

from sandbox.ports import LOOPBACK

SCRIPT = Path(__file__).parent / "post.lua"
WORDS = ["hello", "thanks", "for", "calling", "appointment", "tuesday", "please", "confirm", "the", "booking", "number"]
REPORT = "end-of-call-report"
TRIVIAL = "speech-update"  # stored like any other, and nothing is to be done for it
HANDLED = "status-update"
_RESULT = re.compile(r"^RESULT (\{.*\})$", re.M)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a load came to; times in milliseconds. ``refused``: answers other than 2xx; ``broken``: none at all."""

    requests: int
    seconds: float
    refused: int
    broken: int
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        """Accepted requests a second."""
        return (self.requests - self.refused) / self.seconds


def has_wrk() -> bool:
    """Whether the load generator is on this machine."""
    return shutil.which("wrk") is not None


def event(kind: str, number: int, *, now: float) -> bytes:
    """One of Vapi's messages of about 2 KB, unlike any other; what is said in it differs by its number."""
    pick = random.Random(number)
    message = {
        "type": kind,
        "timestamp": int(now * 1000),
        "call": {"id": str(uuid4()), "type": "inboundPhoneCall", "customer": {"number": "+12025550143"}},
        "endedReason": "customer-ended-call",
        "cost": 0.1234,
        "durationSeconds": 182.4,
        "transcript": " ".join(pick.choice(WORDS) for _ in range(210)),
    }
    return json.dumps({"message": message}).encode()


def write_requests(path: Path, *, target: str, secret: str, count: int, kind: str = REPORT) -> None:
    """``count`` unique requests for ``target``, signed as Vapi signs by HMAC; good for five minutes."""
    write_requests_for(path, [(target, secret)], count=count, kind=kind)


def write_requests_for(path: Path, doors: Sequence[tuple[str, str]], *, count: int, kind: str = REPORT) -> None:
    """The same for each of ``doors`` (target and secret) in turn."""
    now = time.time()
    at = str(int(now))
    with path.open("wb") as file:
        for number in range(count):
            target, secret = doors[number % len(doors)]
            body = event(kind, number, now=now)
            signature = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
            head = (
                f"POST {target} HTTP/1.1\r\nHost: {LOOPBACK}\r\nContent-Type: application/json\r\n"
                f"X-Signature: {signature}\r\nX-Timestamp: {at}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            _write(file, head.encode() + body)


def write_questions(path: Path, *, target: str) -> None:
    """One GET, to be asked again and again."""
    with path.open("wb") as file:
        _write(file, f"GET {target} HTTP/1.1\r\nHost: {LOOPBACK}\r\n\r\n".encode())


def _write(file: IO[bytes], request: bytes) -> None:
    file.write(struct.pack(">I", len(request)) + request)


def send(base_url: str, requests: Path, *, connections: int, seconds: float, pause_ms: float = 0) -> Sent:
    """Send the file's requests for that long. Raises RuntimeError when wrk fails.

    Each connection waits ``pause_ms`` on the average before its next request.
    """
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s", "-s", str(SCRIPT), base_url]
    done = subprocess.run(
        [*words, "--", str(requests), f"{pause_ms:.0f}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 60,
    )
    found = _RESULT.search(done.stdout)
    if done.returncode or found is None:
        raise RuntimeError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    return Sent(**json.loads(found[1]))
