"""``python -m sandbox.standins --port P [--host H] [--state FILE] [--latency S]``: the stand-ins as a process."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from sandbox.standins.server import DEFAULT_LATENCY_SECONDS, StandIns


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.standins", description="Stand-ins for the providers.")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen")
    parser.add_argument("--state", type=Path, help="file that remembers accounts, messages and calendars")
    parser.add_argument("--latency", type=float, default=DEFAULT_LATENCY_SECONDS, help="seconds before every answer")
    options = parser.parse_args()
    # Blocked in every thread that begins from here, and waited for: no handler, so none that could meet the main
    # thread inside the very lock it needs, or just before it falls asleep.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    standins = StandIns(host=options.host, port=options.port, latency=options.latency, state_path=options.state)
    print(f"stand-ins ready at {standins.world.url}", flush=True)
    signal.sigwait(ends)
    standins.stop()


if __name__ == "__main__":
    main()
