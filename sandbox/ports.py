"""Ports of this machine: finding a free one, and saying who has a taken one."""

from __future__ import annotations

import secrets
import socket

import psutil

LOOPBACK = "127.0.0.1"

# Below what systems hand out to outgoing connections (Linux from 32768, macOS from 49152): a server that
# is restarted must find its port free again, and not as the near end of somebody's connection.
FIRST_PORT, LAST_PORT = 20_000, 31_999
ATTEMPTS = 200


def free_port() -> int:
    """A port nobody listens on just now. Drawn from the system's randomness: tests seed the other kind alike."""
    for _ in range(ATTEMPTS):
        port = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT + 1)
        if _is_free(port):
            return port
    raise RuntimeError(f"no free port between {FIRST_PORT} and {LAST_PORT}")


def port_taken(port: int) -> str | None:
    """Who listens on the port, as far as that can be seen; None when it is free."""
    return None if _is_free(port) else _holder(port)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: old connections don't matter
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        return "another process"
    return "another process"
