"""Where an organization's events are forwarded to, with the secrets that sign them.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import context, op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

CURRENT_ORG = "nullif(current_setting('voicedesk.org_id', true), '')::uuid"


def upgrade():
    roles = context.config.attributes["roles"]
    op.create_table(
        "forward_targets",
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary()),
        sa.Column("previous_until", sa.DateTime(timezone=True)),
        sa.Column("off_since", sa.DateTime(timezone=True)),
        sa.Column("off_reason", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("off_reason IN ('gone', 'by_hand')", name=op.f("ck_forward_targets_off_reason")),
        sa.CheckConstraint("(off_since IS NULL) = (off_reason IS NULL)", name=op.f("ck_forward_targets_off")),
        sa.ForeignKeyConstraint(
            ["org_id"], ["organizations.id"], name=op.f("fk_forward_targets_org_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("org_id", name=op.f("pk_forward_targets")),
    )
    op.execute("ALTER TABLE forward_targets ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE forward_targets FORCE ROW LEVEL SECURITY")
    op.execute(f"GRANT SELECT ON forward_targets TO {roles.tenant}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON forward_targets TO {roles.system}")
    op.execute(
        f"CREATE POLICY forward_targets_tenant ON forward_targets TO {roles.tenant}"
        f" USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
    )
    op.execute(
        f"CREATE POLICY forward_targets_system ON forward_targets TO {roles.system} USING (true) WITH CHECK (true)"
    )


def downgrade():
    op.drop_table("forward_targets")
