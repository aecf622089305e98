"""An organization's own server, as forwarding meets it: it listens on this machine and answers as a test wishes."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook


@dataclass
class Receiver:
    """What came, and what is answered: a status, and headers beside it."""

    port: int
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    wait: float = 0.0
    trickle: float = 0.0
    came: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/in?of=us"

    def read(self, secret: str, number: int = -1) -> dict:
        """One message, verified by Standard Webhooks' own library."""
        _, headers, body = self.came[number]
        said: dict = Webhook(secret).verify(body, headers)
        return said

    def ids(self) -> list[str]:
        """The ids of all that came, in order."""
        return [headers["webhook-id"] for _, headers, _ in self.came]


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver, for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.at_once += 1
            receiver.most_at_once = max(receiver.most_at_once, receiver.at_once)
            receiver.came.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            time.sleep(receiver.wait)
            receiver.at_once -= 1
            self.send_response(receiver.status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(receiver.body)))
            self.end_headers()
            for place in range(len(receiver.body) if receiver.trickle else 0):
                self.wfile.write(receiver.body[place : place + 1])
                self.wfile.flush()
                time.sleep(receiver.trickle)
            if not receiver.trickle:
                self.wfile.write(receiver.body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A sender that went away is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver = Receiver(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
