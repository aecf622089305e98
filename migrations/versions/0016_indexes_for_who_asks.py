"""An index of deliveries is used by whoever it is for, and by nobody else.

Revision ID: 0016
Revises: 0015

To the first delivery of a lane the index of an organization looked as good as that of lanes while statistics knew of one
delivery in all: 2 s for a claim among 25,000. Lists and stories say something that is true of every row, and only who
says it can use their indexes (``app/models/deliveries.py``).

Nobody is locked out meanwhile; what a broken run left behind is built anew. Old processes' lists are slow until they
are gone.
"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

NEW = {
    "ix_deliveries_listed": "(org_id, id) WHERE id > 0",
    "ix_deliveries_told": "(lane_key text_pattern_ops) WHERE lane_key <> ''",
}
OLD = {"ix_deliveries_org": "(org_id, id)", "ix_deliveries_story": "(lane_key text_pattern_ops)"}


def upgrade() -> None:
    """The new ones first, so that there is one at any time."""
    _replace(OLD, NEW)


def downgrade() -> None:
    """As it was."""
    _replace(NEW, OLD)


def _replace(old: dict[str, str], new: dict[str, str]) -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '10min'")  # the oldest transaction is waited for, which holds nobody up
        for name, columns in new.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON webhook_delivery_log {columns}")
        for name in old:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute("RESET lock_timeout")
