"""A process that waits in its main thread ends when it is told to, at whatever step the signal finds it."""

import signal
import subprocess
import sys
import time

HAMMERED_SECONDS = 1.0
WAITING = """
import signal
from workers.told import Told

told, waits = Told(), 0
signal.signal(signal.SIGTERM, lambda *_: told.tell())
print("ready", flush=True)
last = False
while not last:
    told = Told()
    last = not told.within(0.5)
    waits += not last
print(waits, flush=True)
"""


def test_a_signal_at_any_step_of_a_wait_ends_it():
    """With a threading.Event in the place of Told, its lock is soon held by the wait that the handler interrupts."""
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        until = time.monotonic() + HAMMERED_SECONDS
        while time.monotonic() < until:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        finally:
            process.kill()
        assert int(process.stdout.readline()) > 100


def test_who_is_not_told_is_held_up_no_longer_than_it_asked_for():
    script = "from workers.told import Told; print(Told().within(0.01))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True, timeout=10) == "False\n"
