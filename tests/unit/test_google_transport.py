"""Connections that are kept, that went stale, and that must not be used again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.integrations.google_calendar.transport import OneTryHttp, ThreadHttp


class _Server(ThreadingHTTPServer):
    """Keeps connections alive; counts them and the requests, and can hang up, slowly or at once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.connections = 0
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(self.path)
        if self.path == "/hang-up-instead":
            self.close_connection = True
            return
        if self.path == "/late":
            time.sleep(0.4)
        answer = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = self.path == "/close-afterwards"

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join(timeout=5)


def post(http: OneTryHttp, server: _Server, path: str, seconds: float = 2.0) -> str:
    http.begin(seconds)
    _, content = http.request(server.url + path, "POST", body="{}")
    return str(content.decode())


def test_a_connection_is_kept_for_the_next_request(server: _Server) -> None:
    http = OneTryHttp()
    assert [post(http, server, path) for path in ("/1", "/2", "/3")] == ["/1", "/2", "/3"]
    assert server.connections == 1


def test_a_connection_that_was_closed_while_idle_is_replaced_before_anything_is_sent(server: _Server) -> None:
    http = OneTryHttp()
    post(http, server, "/close-afterwards")
    time.sleep(0.1)
    assert post(http, server, "/next") == "/next"
    assert server.requests == ["/close-afterwards", "/next"]


def test_a_server_that_hangs_up_is_not_asked_again(server: _Server) -> None:
    http = OneTryHttp()
    post(http, server, "/first")
    with pytest.raises(OSError, match="closed connection"):
        post(http, server, "/hang-up-instead")
    assert http.sent
    assert server.requests == ["/first", "/hang-up-instead"]


def test_after_a_time_out_the_late_answer_is_nobodys(server: _Server) -> None:
    http = OneTryHttp()
    with pytest.raises(TimeoutError):
        post(http, server, "/late", seconds=0.15)
    time.sleep(0.4)
    assert post(http, server, "/next") == "/next"


def test_without_time_nothing_is_sent(server: _Server) -> None:
    http = OneTryHttp()
    with pytest.raises(TimeoutError):
        post(http, server, "/never", seconds=0)
    assert not http.sent
    assert server.requests == []


def test_every_thread_and_every_forked_child_has_its_own_connections() -> None:
    threads = ThreadHttp()
    here = threads.get()
    elsewhere: list[OneTryHttp] = []
    thread = threading.Thread(target=lambda: elsewhere.append(threads.get()))
    thread.start()
    thread.join(timeout=5)
    assert threads.get() is here
    assert elsewhere[0] is not here
    child = os.fork()
    if child == 0:
        os._exit(0 if threads.get() is not here else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
