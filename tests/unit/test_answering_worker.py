"""The threads of a web process: all there before the first request, and none more after a burst."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

from app.http.answering_worker import AnsweringWorker

THREADS = 6


def request_threads() -> set[int | None]:
    return {thread.ident for thread in threading.enumerate() if thread.name.startswith("request")}


def test_a_burst_finds_all_its_threads_there_and_makes_none() -> None:
    def serve() -> int:
        time.sleep(0.01)
        return threading.get_ident()

    with AnsweringWorker.get_thread_pool(SimpleNamespace(cfg=SimpleNamespace(threads=THREADS))) as pool:
        there = request_threads()
        served = {done.result(timeout=10) for done in [pool.submit(serve) for _ in range(60)]}
        assert len(there) == THREADS
        assert served <= there
        assert request_threads() == there
