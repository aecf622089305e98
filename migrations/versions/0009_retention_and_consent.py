"""How long what people said is kept, and the sentence of consent that a call begins with.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import context, op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# What the nightly cleanup may empty, as the system role.
EMPTIED = {
    "calls": "transcript, summary, recording_url, structured_data, words_removed_at",
    "messages": "body, media, words_removed_at",
    "tool_answers": "result",
    "webhook_payloads": "body, raw, answer, words_removed_at",
}
MARKED = ("calls", "messages", "webhook_payloads")
WALKED = ("calls", "messages")


def upgrade() -> None:
    """Everybody keeps words for 90 days until told otherwise; nothing goes before the next cleanup."""
    roles = context.config.attributes["roles"]
    op.add_column("organizations", sa.Column("keep_words_days", sa.SmallInteger(), server_default="90", nullable=False))
    op.add_column("organizations", sa.Column("consent_sentence", sa.Text()))
    op.create_check_constraint(op.f("ck_organizations_keep_words_days"), "organizations", "keep_words_days >= 0")
    op.add_column("calls", sa.Column("consent_sentence", sa.Text()))
    op.add_column("calls", sa.Column("consent_at", sa.DateTime(timezone=True)))
    for table in MARKED:
        op.add_column(table, sa.Column("words_removed_at", sa.DateTime(timezone=True)))
    for table in WALKED:
        op.create_index(
            f"ix_{table}_words",
            table,
            ["org_id", "created_at"],
            postgresql_where=sa.text("words_removed_at IS NULL"),
        )
    for table, columns in EMPTIED.items():
        op.execute(f"GRANT UPDATE ({columns}) ON {table} TO {roles.system}")


def downgrade() -> None:
    """What was removed stays removed."""
    roles = context.config.attributes["roles"]
    for table in WALKED:
        op.drop_index(f"ix_{table}_words", table_name=table)
    for table, columns in EMPTIED.items():
        op.execute(f"REVOKE UPDATE ({columns}) ON {table} FROM {roles.system}")
    for table in MARKED:
        op.drop_column(table, "words_removed_at")
    op.drop_column("calls", "consent_at")
    op.drop_column("calls", "consent_sentence")
    op.drop_constraint(op.f("ck_organizations_keep_words_days"), "organizations")
    op.drop_column("organizations", "consent_sentence")
    op.drop_column("organizations", "keep_words_days")
