"""The outside world for demo, tests, chaos and benchmarks: Vapi, Twilio, Google Calendar and Slack.

They speak the providers' real wire formats over HTTP and share no code with the product. In a test:
``with StandIns.running(latency=0.0) as world``; against ``python -m sandbox.standins``: ``RemoteWorld(url)``.
"""

from sandbox.standins.server import StandIns
from sandbox.standins.world import RemoteWorld

__all__ = ["RemoteWorld", "StandIns"]
