"""The cleanup finds the next of what ended at one moment without sorting all of it.

Revision ID: 0018
Revises: 0017

A walk along the dates of ending goes by date and id, and its index was by date alone: each piece of 500 read and sorted
all that had ended at the same moment, which is everything that one statement finished (decision 69).

Nobody is locked out meanwhile; what a broken run left behind is built anew.
"""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

NEW = {"ix_deliveries_ended": "(finished_at, id) WHERE finished_at IS NOT NULL"}
OLD = {"ix_deliveries_finished": "(finished_at) WHERE finished_at IS NOT NULL"}


def upgrade() -> None:
    """The new one first, so that there is one at any time."""
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
