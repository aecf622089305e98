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


def upgrade() -> None:
    """The new one first, so that there is one at any time."""
    _replace("ix_deliveries_finished", by="ix_deliveries_ended", on="finished_at, id")


def downgrade() -> None:
    """As it was."""
    _replace("ix_deliveries_ended", by="ix_deliveries_finished", on="finished_at")


def _replace(old: str, *, by: str, on: str) -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '10min'")  # the oldest transaction is waited for, which holds nobody up
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {by}")
        op.execute(f"CREATE INDEX CONCURRENTLY {by} ON webhook_delivery_log ({on}) WHERE finished_at IS NOT NULL")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {old}")
        op.execute("RESET lock_timeout")
