"""Whose address a request comes from, as far as counting goes. Owns nothing else; nobody logs it."""

from __future__ import annotations

import ipaddress

from flask import request

V6_NETWORK_BITS = 64  # what one customer of a provider has; a single address of it costs him nothing
UNREADABLE = "unreadable"  # all of them together: nonsense must not be a way around


def client_network() -> str:
    """An IPv4 address, or the /64 network of an IPv6 one.

    It is the connection's own, or what the trusted proxies say of it (``TRUSTED_PROXIES``); what a client
    adds to ``X-Forwarded-For`` itself is never reached.
    """
    try:
        address = ipaddress.ip_address((request.remote_addr or "").split("%")[0])
    except ValueError:
        return UNREADABLE
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(address), V6_NETWORK_BITS), strict=False))
        address = address.ipv4_mapped
    return str(address)
