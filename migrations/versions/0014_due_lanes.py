"""What is due is found by its date: with thousands of organizations that have dates to come, an idle claim walked them all.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Partial, as the index of turns is: only who asks for a date can use it."""
    op.execute("CREATE INDEX ix_lanes_due ON lanes (due_at) WHERE due_at IS NOT NULL")


def downgrade() -> None:
    """As it was."""
    op.execute("DROP INDEX ix_lanes_due")
