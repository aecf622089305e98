"""What a process that is about to serve does about its pauses."""

from __future__ import annotations

import os
import subprocess
import sys

from app.config import environment_of

# In a process of its own: it is for good.
SETTLED = """
import gc, sys
import wsgi
before = len(gc.get_objects())
from app.interpreter import SWITCH_SECONDS, settle
settle()
class Ring: pass
ring = Ring(); ring.itself = ring; del ring
print(before, len(gc.get_objects()), gc.collect() >= 1, sys.getswitchinterval() <= SWITCH_SECONDS * 1.01)
"""


def test_a_collection_looks_only_at_what_came_after_the_start_and_still_finds_it(settings):
    environment = {**os.environ, **environment_of(settings)}
    command = [sys.executable, "-c", SETTLED]
    came_to = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    before, after, finds_garbage, turns_are_short = came_to.stdout.split()
    assert int(before) > 50_000
    assert int(after) < int(before) / 20
    assert (finds_garbage, turns_are_short) == ("True", "True")
