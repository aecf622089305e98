"""What an organization's appointments hold from now on is found without its past.

Revision ID: 0017
Revises: 0016

Free times were looked for among all appointments the organization ever had: appointments stay, so a caller would have
waited longer every year. Nobody is locked out meanwhile; what a broken run left behind is built anew.
"""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Beside the one by when they start: lists are by that."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '10min'")  # the oldest transaction is waited for, which holds nobody up
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_appointments_held")
        op.execute("CREATE INDEX CONCURRENTLY ix_appointments_held ON appointments (org_id, holds_until)")
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    """As it was."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '10min'")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_appointments_held")
        op.execute("RESET lock_timeout")
