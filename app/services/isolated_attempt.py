"""The child's side of isolation: one attempt at one delivery, for a lane that the parent process holds.

Owns the reading of that lane. The parent renews its lease, decides what comes next and gives it back
(``delivery.py``, ``isolation.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from app.models.lanes import read_held
from app.services.delivery import deliver_suspect_here

if TYPE_CHECKING:
    from app.services.platform import Platform


def attempt(platform: Platform, *, org_id: UUID, lane_key: str, token: int, delivery_id: int) -> bool:
    """Whether the delivery is finished; False also when the lane has passed to another process meanwhile."""
    with platform.database.transaction(system=True) as session:
        lane = read_held(session, org_id, lane_key, token)
    return lane is not None and deliver_suspect_here(platform, lane, delivery_id)
