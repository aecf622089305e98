"""Several hosts on one machine: network namespaces on a bridge, each of which can be cut off and joined again.

Owns their making and their end. Needs root and Linux; whoever may not is told why (``why_not``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

SECONDS = 10
_PID = os.getpid()


@dataclass(frozen=True)
class Host:
    """One host: the words that begin a command on it, its address, and the cable that leads to it."""

    namespace: str
    address: str
    cable: str

    @property
    def prefix(self) -> list[str]:
        """What stands before a command that is to run there."""
        return ["ip", "netns", "exec", self.namespace]

    def cut_off(self) -> None:
        """Nothing comes or goes any more, and nobody is told."""
        ip("link", "set", self.cable, "down")

    def join_again(self) -> None:
        """The cable is back."""
        ip("link", "set", self.cable, "up")


@dataclass
class Network:
    """A bridge with hosts on it. ``address`` is this machine's own on the bridge."""

    count: int
    bridge: str = f"vdb{_PID % 100_000}"
    subnet: str = f"10.77.{_PID % 250}"
    hosts: list[Host] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where the servers are reached from the hosts."""
        return f"{self.subnet}.1"

    def __enter__(self) -> Network:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            with contextlib.suppress(RuntimeError):
                ip("netns", "del", host.namespace)
        with contextlib.suppress(RuntimeError):
            ip("link", "del", self.bridge)

    def _make(self) -> None:
        ip("link", "add", self.bridge, "type", "bridge")
        ip("addr", "add", f"{self.address}/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        for number in range(1, self.count + 1):
            host = Host(f"{self.bridge}-{number}", f"{self.subnet}.{10 + number}", f"{self.bridge}h{number}")
            ip("netns", "add", host.namespace)
            self.hosts.append(host)
            ip("link", "add", host.cable, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            ip("link", "set", host.cable, "master", self.bridge)
            ip("link", "set", host.cable, "up")
            for words in (
                ("addr", "add", f"{host.address}/24", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                ("link", "set", "lo", "up"),
            ):
                ip("-n", host.namespace, *words)


def ip(*words: str) -> None:
    """iproute2's command. Raises RuntimeError with what it said."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def why_not() -> str | None:
    """Why this machine cannot have hosts of its own; None when it can."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "network namespaces need Linux and iproute2"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        ip("netns", "add", probe := f"vdp{_PID}")
        ip("netns", "del", probe)
    except RuntimeError as error:
        return f"network namespaces are not permitted here ({error})"
    return None
