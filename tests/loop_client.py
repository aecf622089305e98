"""A client of the door in the server's loop: bytes in, bytes out, as gunicorn would hand them over."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from werkzeug.datastructures import Headers
from werkzeug.test import Client, EnvironBuilder

from app.http.loop_door import LoopDoor

SERVER_HEADERS = {"server", "date", "connection"}
SECONDS = 10


@dataclass(frozen=True)
class Heard:
    """An answer, without what a server adds to every one."""

    status_code: int
    headers: Headers
    data: bytes


class LoopClient:
    """Asks the loop's door first; what it leaves, and what it gives back, is asked of ``behind``."""

    def __init__(self, door: LoopDoor, behind: Client) -> None:
        self._door = door
        self._behind = behind
        self.taken = 0  # requests the door looked at and did not leave
        self.served = 0

    def post(self, path: str, **given: Any) -> Any:
        answer = self.send(as_bytes(path, **given))
        return answer or self._behind.post(path, **given)

    def get(self, path: str, **given: Any) -> Any:
        return self._behind.get(path, **given)

    def send(self, data: bytes) -> Heard | None:
        """What the door says to these bytes; None when it leaves them to the server."""
        said: list[bytes | None] = []
        told = threading.Event()

        def tell(answers: list[tuple[Any, bytes | None]]) -> None:
            said.extend(answer for _, answer in answers)
            told.set()

        if not self._door.take(data, self, tell):
            return None
        self.taken += 1
        assert told.wait(SECONDS)
        (answer,) = said
        if answer is None:
            return None
        self.served += 1
        return parsed(answer)


def as_bytes(path: str, **given: Any) -> bytes:
    """The request as it comes over the wire."""
    builder = EnvironBuilder(path=path, method="POST", **given)
    environ = builder.get_environ()
    body = environ["wsgi.input"].read()
    headers = {"Host": "desk.example", **dict(builder.headers), "Content-Length": str(len(body))}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def parsed(answer: bytes) -> Heard:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = Headers([tuple(line.split(": ", 1)) for line in lines])
    assert {name.lower() for name in headers.keys()} >= SERVER_HEADERS  # noqa: SIM118 - of Headers, not of a dict
    for name in SERVER_HEADERS:
        headers.remove(name)
    return Heard(int(first.split()[1]), headers, body)
