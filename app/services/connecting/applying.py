"""Setting at a provider what differs there.

Owns the order (that of the comparison: a credential before what names it) and the line in the audit trail.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import UUID

from app.observability.logging import get_logger
from app.services import audit
from app.services.connecting.differences import Difference

if TYPE_CHECKING:
    from app.services.platform import Platform

log = get_logger(__name__)


def apply(platform: Platform, integration_id: UUID, found: Iterable[Difference], *, actor: str) -> None:
    """Mend what can be mended; safe to repeat. Raises what the provider's refusals and silences mean.

    What was done before a failure stays done, and is no difference the next time.
    """
    done: list[str] = []
    org_id: UUID | None = None
    try:
        for difference in found:
            if difference.mend is not None:
                difference.mend()
                done.append(difference.what)
                org_id = difference.connection.org_id
    finally:
        log.info("integration.applied", integration_id=str(integration_id), changes=len(done))
        if org_id is not None and done:
            with platform.database.transaction(system=True) as session:
                audit.note(
                    session, org_id, actor=actor, action="integration.apply", subject=str(integration_id), set=done
                )
