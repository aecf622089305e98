"""What is said and texted: languages, wordings, reminders, notices, and conversations by text.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

CURRENT_ORG = "nullif(current_setting('voicedesk.org_id', true), '')::uuid"


def upgrade() -> None:
    """New facts of organizations and texts, and the table of what customers were offered by text."""
    roles = context.config.attributes["roles"]
    for column in (
        sa.Column("language", sa.Text(), server_default="en", nullable=False),
        sa.Column("templates", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("reminders", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("quiet_hours", postgresql.JSONB(), server_default='["21:00", "08:00"]', nullable=False),
        sa.Column("notify_number", sa.Text()),
        sa.Column(
            "notify_about", postgresql.JSONB(), server_default='["bookings", "changes", "unfinished"]', nullable=False
        ),
        sa.Column("sms_instead", sa.Boolean(), server_default=sa.true(), nullable=False),
    ):
        op.add_column("organizations", column)
    op.add_column(
        "tool_answers", sa.Column("unfinished", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column("messages", sa.Column("template", sa.Text()))
    op.add_column("messages", sa.Column("template_values", postgresql.JSONB()))
    op.add_column("messages", sa.Column("content_sid", sa.Text()))
    op.create_table(
        "text_dialogues",
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("intent", sa.Text(), nullable=False),
        sa.Column("appointment_id", sa.Uuid()),
        sa.Column("options", postgresql.JSONB(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("intent IN ('cancel', 'move')", name=op.f("ck_text_dialogues_intent")),
        sa.ForeignKeyConstraint(
            ["org_id", "appointment_id"],
            ["appointments.org_id", "appointments.id"],
            name=op.f("fk_text_dialogues_org_id_appointment_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "address", name=op.f("pk_text_dialogues")),
    )
    op.create_index("ix_text_dialogues_appointment_id", "text_dialogues", ["org_id", "appointment_id"])
    op.create_index("ix_text_dialogues_expires", "text_dialogues", ["expires_at"])
    op.execute("ALTER TABLE text_dialogues ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE text_dialogues FORCE ROW LEVEL SECURITY")
    for role in (roles.tenant, roles.system):
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON text_dialogues TO {role}")
    op.execute(
        f"CREATE POLICY text_dialogues_tenant ON text_dialogues TO {roles.tenant}"
        f" USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
    )
    op.execute(
        f"CREATE POLICY text_dialogues_system ON text_dialogues TO {roles.system} USING (true) WITH CHECK (true)"
    )


def downgrade() -> None:
    """Everybody is told in English again."""
    op.drop_table("text_dialogues")
    op.drop_column("tool_answers", "unfinished")
    for name in ("content_sid", "template_values", "template"):
        op.drop_column("messages", name)
    for name in ("sms_instead", "notify_about", "notify_number", "quiet_hours", "reminders", "templates", "language"):
        op.drop_column("organizations", name)
