"""A steady load: requests of a file sent at their moments over kept connections, whether or not those before are done.

Owns the sending and the latencies, which count from the moment a request was due: a server that stands still is not
asked less for it.
"""

from __future__ import annotations

import http.client
import struct
import threading
import time
from contextlib import closing
from pathlib import Path

from sandbox.ports import LOOPBACK


def send(port: int, requests: Path, *, rate: float, connections: int) -> list[float]:
    """Send all of the file's requests, ``rate`` a second; milliseconds until each was answered.

    Raises RuntimeError when one is answered by anything but 200.
    """
    ready = _read(requests)
    began = time.monotonic()
    refused: list[int] = []
    took: list[float] = []

    def go(first: int) -> None:
        with closing(http.client.HTTPConnection(LOOPBACK, port, timeout=20)) as connection:
            connection.connect()
            for number in range(first, len(ready), connections):
                due = began + number / rate
                if (early := due - time.monotonic()) > 0:
                    time.sleep(early)
                connection.sock.sendall(ready[number])
                answer = http.client.HTTPResponse(connection.sock, method="POST")
                answer.begin()
                answer.read()
                took.append((time.monotonic() - due) * 1000)
                if answer.status != 200:
                    refused.append(answer.status)

    senders = [threading.Thread(target=go, args=(first,)) for first in range(connections)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    if refused or len(took) < len(ready):
        raise RuntimeError(f"{len(took) - len(refused)} of {len(ready)} were accepted: {sorted(set(refused))}")
    return took


def _read(path: Path) -> list[bytes]:
    data, place, found = path.read_bytes(), 0, []
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        found.append(data[place + 4 : place + 4 + length])
        place += 4 + length
    return found
