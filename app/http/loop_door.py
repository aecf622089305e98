"""The short way of a webhook that is in order, for a server that has it whole and no thread to spare for it.

Owns what becomes of it between its bytes and the bytes of its answer: looked at in the server's loop, which asks nobody
and waits for nobody, stored with all that came at the same time by a thread that does nothing else, answered
after that commit. Whatever is not in order, or could not be stored so, the server reads and serves as any other
request; nothing is done before that which may not be done twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from uuid import UUID

from app.config import Settings
from app.errors import DatabaseUnavailable
from app.http.in_order import Address, InOrder
from app.http.webhooks import DATABASE_SECONDS
from app.http.whole_requests import read_whole
from app.integrations.events import InboundEvent
from app.observability import context, metrics
from app.services import intake
from app.services.directory import Endpoint
from app.services.intake import Accepted, Told
from app.services.platform import Platform
from app.services.rounds import Rounds

Answered = Callable[[list[tuple[Any, bytes | None]]], None]


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A webhook in order. ``asker`` is the server's own word for who is to be answered, by ``tell``."""

    asker: Any
    tell: Answered
    address: Address
    endpoint: Endpoint
    event: InboundEvent
    request_id: str
    began: float

    @property
    def key(self) -> tuple[UUID, str]:
        return self.endpoint.integration_id, self.event.event_key

    @property
    def size(self) -> int:
        return len(self.event.request.body) if self.event.request else 0


class LoopDoor:
    """Of one process. Thread-safe, except for ``take``, which is the loop's."""

    def __init__(self, platform: Platform, settings: Settings) -> None:
        self._platform = platform
        self._in_order = InOrder(platform, settings)
        self.rounds: Rounds[_Admitted] = Rounds(self._store, name="intake")
        self._date = (0, "")

    def take(self, data: bytes, asker: Any, tell: Answered) -> bool:
        """Whether it is taken: then ``tell`` will be called, from another thread, with the ``asker``.

        It gets a list of all whose round it was, each with its whole answer, or with None when the server has to
        serve it in its own way.
        """
        try:
            admitted = self._admit(data, asker, tell)
        except Exception:  # noqa: BLE001 - the framework meets it again, and says what it is
            return False
        if admitted is None:
            return False
        self.rounds.put(admitted)
        return True

    def _admit(self, data: bytes, asker: Any, tell: Answered) -> _Admitted | None:
        """The webhook, if it is one in order. Raises whatever is wrong with it."""
        request = read_whole(data)
        if request is None:
            return None
        headers = request.headers
        address = self._in_order.address(request.path, headers.get("content-type", ""), headers["content-length"])
        endpoint = self._in_order.endpoint(address) if address else None
        if address is None or endpoint is None:
            return None
        began = time.monotonic()
        event = self._in_order.event(endpoint, request.target, headers, request.body)
        request_id = context.request_id_of(headers.get("x-request-id"))
        return _Admitted(asker, tell, address, endpoint, event, request_id, began) if event else None

    def _store(self, group: list[_Admitted]) -> None:
        """One round: store, answer, tell."""
        accepted = self._accept(group)
        group[0].tell(
            [(one.asker, self._answer(one) if stored else None) for one, stored in zip(group, accepted, strict=True)]
        )
        now = time.monotonic()
        done = [(one, stored) for one, stored in zip(group, accepted, strict=True) if stored]
        for one, _ in done:
            metrics.request_ended(one.address.rule, int(one.address.answer.status[:3]), now - one.began)
        intake.tell(*(_told(one, stored, now - one.began) for one, stored in done if not stored.spooled))

    def _accept(self, group: list[_Admitted]) -> Sequence[Accepted | None]:
        """What became of each; None for one that is to be met alone, by a thread, where it is said what is wrong."""
        platform, events = self._platform, [(one.endpoint, one.event) for one in group]
        platform.database.hurry(DATABASE_SECONDS)
        try:
            if platform.spool.is_ahead_of_any(events):
                return [None] * len(group)
            return intake.accept_together(platform, events)
        except DatabaseUnavailable:
            return [self._keep(one) for one in group]
        except Exception:  # noqa: BLE001 - of one of them, nobody knows which
            return [None] * len(group)
        finally:
            platform.database.hurry(None)

    def _keep(self, one: _Admitted) -> Accepted | None:
        ids = {"request_id": one.request_id, "provider": one.address.provider, "org_id": str(one.endpoint.org_id)}
        with context.bound(**ids), suppress(DatabaseUnavailable):
            return intake.keep(self._platform, one.endpoint, one.event)
        return None

    def _answer(self, one: _Admitted) -> bytes:
        answer = one.address.answer
        lines = [
            f"HTTP/1.1 {answer.status}",
            "Server: gunicorn",
            f"Date: {self._now()}",
            "Connection: keep-alive",
            *(f"{name}: {said}" for name, said in self._in_order.headers(answer, one.request_id)),
            "\r\n",
        ]
        return "\r\n".join(lines).encode("latin-1") + answer.body

    def _now(self) -> str:
        second = int(time.time())
        if second != self._date[0]:
            self._date = (second, formatdate(second, usegmt=True))
        return self._date[1]


def _told(one: _Admitted, accepted: Accepted, seconds: float) -> Told:
    more = {"duration_ms": round(seconds * 1000), "request_id": one.request_id}
    return Told(accepted, one.endpoint.org_id, one.address.provider, one.event.type, more)
