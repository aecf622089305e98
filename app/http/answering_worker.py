"""gunicorn's threaded worker as this house needs it: quick with webhooks, and nobody who connected is left.

Owns what a connection goes through between its socket and a thread. A webhook that is here whole and in order is
served in the loop (``loop_door.py``) and its connection never meets a thread; everything else does as with gunicorn.
Knows nothing of what is asked.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from app.http.whole_requests import is_cut

START_SECONDS = 30.0
MOST_BYTES_IN_LOOP = 64 * 1024  # a larger request comes in pieces, and is worth a thread


class _Connection(TConn):  # type: ignore[misc]
    """A connection, and where the loop is with its request.

    ``begun`` is what came of it, ``is_served`` whether an answer is on its way; ``is_watched``: the poller knows it.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.begun = b""
        self.is_served = False
        self.is_watched = False


class AnsweringWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, which also answers who had connected before it was told to stop.

    gunicorn's own leaves them, and whoever comes while it finishes the others, in the queue of a socket that
    nobody accepts from, and its last close resets them all.

    Each connection waits in the loop until something comes on it, also a new one. gunicorn's own gives every request
    to a thread, by way of a queue and back by a pipe, which costs more than an accept.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._door: Any = None
        self._told = 0.0  # the time, when gunicorn was told that the loop goes round

    def init_process(self) -> None:
        """Begin; what gunicorn was told changes no more, and is looked up as an attribute instead of as a setting."""
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        super().init_process()

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """All threads from the beginning: a burst waits for none to be made, and more of them mean something grows."""
        pool = ThreadPoolExecutor(self.cfg.threads, "request")
        there = threading.Barrier(self.cfg.threads)  # nobody is idle before all are there
        for _ in range(self.cfg.threads):
            pool.submit(there.wait, START_SECONDS)
        return pool

    def run(self) -> None:
        """Serve. What the loop has no words for (TLS, HTTP/2, the PROXY protocol, access lines) is gunicorn's."""
        cfg = self.cfg
        knows_all = not (cfg.is_ssl or cfg.accesslog or cfg.proxy_protocol != "off" or "h2" in cfg.http_protocols)
        if knows_all:
            self._door = getattr(self.app.callable, "extensions", {}).get("loop_door")
        super().run()

    def notify(self) -> None:
        """Tell gunicorn that the loop goes round; once a second is enough."""
        now = time.monotonic()
        if now - self._told >= 1:
            self._told = now
            super().notify()

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection; it waits in the loop for its first words."""
        if self._door is None or not self.alive:
            super().accept(listener)
            return
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        self.nr_conns += 1
        self._await_request(_Connection(self.cfg, client, address, listener.getsockname()))

    def on_client_socket_readable(self, conn: Any, client: socket.socket) -> None:
        """A request, or its beginning: served in the loop, or by a thread, which finds what was read already."""
        if not isinstance(conn, _Connection):
            super().on_client_socket_readable(conn, client)
            return
        conn.is_watched = True  # perhaps by gunicorn, after a thread had it
        if conn.is_served:  # it says more before it has its answer, or is gone: that is for later
            self._forget(conn)
            return
        self.keepalived_conns.remove(conn)
        try:
            is_over = not self._read(conn) or not self.alive
        except BlockingIOError:  # nothing yet
            is_over = not self.alive
        if is_over or not self._serve(conn):
            self._give(conn)

    def _serve(self, conn: _Connection) -> bool:
        """Whether the loop does it, or waits for the rest of it."""
        if is_cut(conn.begun, most_bytes=MOST_BYTES_IN_LOOP):
            self._await_request(conn)
            return True
        conn.is_served = self._door.take(conn.begun, conn, self._answer)
        return conn.is_served

    def set_accept_enabled(self, enabled: bool) -> None:
        """Accept or do not; at the end first all who wait, and then nobody can begin to wait."""
        super().set_accept_enabled(enabled)
        if enabled or (self.alive and self.ppid == os.getppid()):
            return  # it goes on, or has too many for the moment
        for listener in self.sockets:
            before = -1
            while before != self.nr_conns:
                before = self.nr_conns
                super().accept(listener)
            listener.close()
        for conn in [one for one in self.keepalived_conns if isinstance(one, _Connection)]:
            if not conn.initialized or conn.begun:  # who has not said all yet gets a thread that waits for it
                self.on_client_socket_readable(conn, conn.sock)

    def _read(self, conn: _Connection) -> bool:
        """Whether more came; if not, it is for a thread to find out why. Raises BlockingIOError."""
        try:
            data: bytes = conn.sock.recv(MOST_BYTES_IN_LOOP)
        except BlockingIOError:
            raise
        except OSError:
            return False
        if data and not conn.initialized:
            conn.init()
            conn.sock.setblocking(False)
        conn.begun += data
        return bool(data)

    def _answer(self, answers: list[tuple[Any, bytes | None]]) -> None:
        """Send them, from whatever thread has them, and let the loop have the connections again."""
        self.nr += sum(answer is not None for _, answer in answers)
        sent = [(conn, self._send(conn, answer) if answer else None) for conn, answer in answers]
        self.method_queue.defer(self._go_on, sent)

    def _send(self, conn: _Connection, answer: bytes) -> bool:
        """Whether it went out; who takes not even so little in is gone, or does not listen."""
        try:
            return bool(conn.sock.send(answer) == len(answer))
        except OSError:
            return False

    def _go_on(self, connections: list[tuple[_Connection, bool | None]]) -> None:
        """In the loop: wait for each one's next request, give a thread what was not served, leave what broke."""
        for conn, is_sent in connections:
            conn.is_served = False
            if is_sent is None:
                self._give(conn)
                continue
            conn.begun = b""
            if is_sent and len(self.keepalived_conns) < self.max_keepalived:
                self._await_request(conn)
            else:
                self._forget(conn)
                self.nr_conns -= 1
                conn.close()

    def _give(self, conn: _Connection) -> None:
        """Let a thread serve it, which finds what was read already."""
        self._forget(conn)
        if conn.begun:
            conn.parser.unreader.unread(conn.begun)
            conn.begun = b""
        self.enqueue_req(conn)

    def _await_request(self, conn: _Connection) -> None:
        conn.set_timeout()
        if not self.alive:
            conn.timeout = min(conn.timeout, time.monotonic() + STOP_KEEPALIVE_LINGER)
        self.keepalived_conns.append(conn)
        if not conn.is_watched:
            conn.is_watched = True
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))

    def _forget(self, conn: _Connection) -> None:
        if conn.is_watched:
            conn.is_watched = False
            self.poller.unregister(conn.sock)
