"""Where something may be sent that somebody else has named: never into the house's own network.

Owns which URLs and which addresses are refused (server-side request forgery), and the one look-up whose result
is then connected to. Sends nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.errors import InvalidInput, ProviderUnavailable, TemporaryFailure

LONGEST_URL = 2000
MOST_ADDRESSES = 4
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_MAPPED = tuple(ipaddress.IPv6Network(net) for net in ("::ffff:0:0/96", "64:ff9b::/96"))  # an IPv4 address at their end
_UNICAST = ipaddress.IPv6Network("2000::/3")
# Tunnels that end at an IPv4 address of the sender's choice, and addresses of clouds' own services that look public.
_REFUSED = tuple(
    ipaddress.ip_network(net)
    for net in ("2002::/16", "2001::/32", "192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")
)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that passed, taken apart. ``path`` has the query with it."""

    host: str
    port: int
    path: str
    encrypted: bool

    @property
    def authority(self) -> str:
        """As the header Host has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.encrypted else 80) else f"{host}:{self.port}"


class TargetNotAllowed(TemporaryFailure):
    """The target's name leads to an address that is not public."""

    code = "target_not_allowed"
    advice = "Name a host that is reached from the internet."


def read_url(url: str, *, plain_allowed: bool) -> Target:
    """Take the URL apart; raises InvalidInput, which says what a URL must be and never what this one is."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InvalidInput("url: it cannot be read") from None
    if not _PRINTABLE.fullmatch(url) or len(url) > LONGEST_URL:
        raise InvalidInput(f"url: at most {LONGEST_URL} plain characters without spaces; others are %-escaped")
    if parts.scheme not in ({"https", "http"} if plain_allowed else {"https"}):
        raise InvalidInput("url: it must begin with https://")
    if not host or parts.username is not None or parts.password is not None or parts.fragment or "%" in host:
        raise InvalidInput("url: https://host[:port]/path, without a user, a password or a fragment")
    if port == 0:
        raise InvalidInput("url: the port is none")
    encrypted = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(host.rstrip("."), port or (443 if encrypted else 80), path, encrypted)


def find_addresses(target: Target, *, private_allowed: bool, seconds: float) -> list[str]:
    """The addresses to connect to, looked up once. Raises TargetNotAllowed when any of them is not public,
    and ProviderUnavailable when the name is unknown or nobody tells within ``seconds``."""
    found = _look_up(target, seconds)
    if not private_allowed and not all(is_public(address) for address in found):
        raise TargetNotAllowed
    return found[:MOST_ADDRESSES]


def is_public(address: str) -> bool:
    """Whether the address is one of the internet's: not private, loopback, link-local (metadata), multicast, reserved,
    nor one that hides such a one."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if any(ip in net for net in _MAPPED):
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip not in _UNICAST:
            return False
    if any(ip.version == net.version and ip in net for net in _REFUSED):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local)


def _look_up(target: Target, seconds: float) -> list[str]:
    """In a thread of its own: the system's look-up has no time limit that could be set."""
    found: list[str] = []

    def look() -> None:
        try:
            infos = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        found.extend(dict.fromkeys(str(info[4][0]) for info in infos))

    thread = threading.Thread(target=look, name="look-up", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive() or not found:
        raise ProviderUnavailable("the target's name leads nowhere", maybe_done=False)
    return list(found)
