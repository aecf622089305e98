"""The index of turns is for turns only: a look-up by key that could use it read all lanes of an organization.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make it partial. Every date is set; what matters is that only who asks for a date can use it."""
    op.execute("DROP INDEX ix_lanes_turn")
    op.execute("CREATE INDEX ix_lanes_turn ON lanes (org_id, due_at) WHERE due_at IS NOT NULL")


def downgrade() -> None:
    """As it was."""
    op.execute("DROP INDEX ix_lanes_turn")
    op.execute("CREATE INDEX ix_lanes_turn ON lanes (org_id, due_at)")
