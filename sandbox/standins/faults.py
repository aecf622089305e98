"""What can go wrong at a provider, on purpose: faults that tests switch on and off.

Owns which fault a request meets and how long a hanging one hangs. How a 500 or a 429 looks on the
wire is the provider's business, how a connection is cut the server's.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

KINDS = frozenset(
    {
        "slow",  # works, after `seconds`
        "error_500",  # answers 500 without doing the work
        "error_500_after",  # does the work, then answers 500
        "throttle_429",  # answers 429 without doing the work, with Retry-After when `retry_after` is given
        "hang",  # never answers and does nothing; the connection is cut when the fault is cleared
        "cut_before",  # cuts the connection without doing the work
        "cut_after",  # does the work, then cuts the connection
    }
)
PROVIDERS = frozenset({"twilio", "google", "vapi", "slack"})
LONGEST_HANG_SECONDS = 75.0


@dataclass
class Fault:
    """One fault. ``operation`` None means all of the provider's (Google's token endpoint apart).

    ``times`` is how many requests it still affects, None for all until it is cleared.
    """

    provider: str
    kind: str
    operation: str | None = None
    times: int | None = None
    seconds: float = 1.0
    retry_after: int | None = 1
    cleared: threading.Event = field(default_factory=threading.Event, repr=False)

    def concerns(self, provider: str, operation: str) -> bool:
        """Whether a request for this operation meets the fault.

        Google's token endpoint fails only by name (``issue_token``): it is another service there, and
        a fault "once" on the calendar must not be used up by a client that fetches its token first.
        """
        if provider != self.provider or self.times == 0:
            return False
        return operation != "issue_token" if self.operation is None else operation == self.operation

    def describe(self) -> dict[str, Any]:
        """The fault as JSON."""
        names = ("provider", "kind", "operation", "times", "seconds", "retry_after")
        return {name: getattr(self, name) for name in names}


class FaultBoard:
    """The faults that are switched on. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def switch_on(
        self,
        provider: str,
        kind: str,
        operation: str | None = None,
        times: int | None = None,
        seconds: float = 1.0,
        retry_after: int | None = 1,
    ) -> dict[str, Any]:
        """Add a fault; raise ValueError for an unknown provider or kind. Earlier faults are met first."""
        if provider not in PROVIDERS or kind not in KINDS:
            raise ValueError(f"provider is one of {sorted(PROVIDERS)}, kind one of {sorted(KINDS)}")
        fault = Fault(provider, kind, operation, times, seconds, retry_after)
        with self._lock:
            self._faults.append(fault)
        return fault.describe()

    def clear(self, provider: str | None = None) -> None:
        """Switch off all faults (of one provider) and let go of what hangs on them."""
        with self._lock:
            gone = [fault for fault in self._faults if provider in (None, fault.provider)]
            self._faults = [fault for fault in self._faults if fault not in gone]
        for fault in gone:
            fault.cleared.set()

    def meet(self, provider: str, operation: str) -> Fault | None:
        """The fault this request meets, one of its times used up; None when all is well."""
        with self._lock:
            for fault in self._faults:
                if fault.concerns(provider, operation):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    def listing(self) -> list[dict[str, Any]]:
        """All faults that are switched on, used-up ones included (their ``times`` is 0)."""
        with self._lock:
            return [fault.describe() for fault in self._faults]
