"""How the interpreter of a process that serves divides its time: what a thread that is ready waits for.

Owns two settings of Python's, made once when all that stays in memory is there. Knows nothing of what is served.
"""

from __future__ import annotations

import gc
import sys

# A thread that has its answer waits for the interpreter so long at the most, instead of 5 ms, while another computes:
# each of sixteen texts that wait for Twilio has a dozen answers.
SWITCH_SECONDS = 0.0005


def settle() -> None:
    """Call when a process is about to serve: its threads wait no longer than they must.

    What has been loaded by now (200,000 objects) is here to stay. A full collection looked at all of it each time, 0.1
    to 0.25 s in which no thread answers anybody; from now on it looks at what came since (Python docs, gc.freeze).
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)
