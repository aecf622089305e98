"""All faults, in the order in which they are run. Owns nothing but the list."""

from __future__ import annotations

from chaos.faults import cleaning, clocks, events, hosts, leases, outage, processes, providers, servers, soak
from chaos.stage import Fault

FAULTS: tuple[Fault, ...] = (
    *processes.FAULTS,
    *servers.FAULTS,
    *providers.FAULTS,
    *events.FAULTS,
    *leases.FAULTS,
    *clocks.FAULTS,
    *outage.FAULTS,
    *cleaning.FAULTS,
    *hosts.FAULTS,
    *soak.FAULTS,
)
GROUPS = tuple(dict.fromkeys(fault.group for fault in FAULTS))
