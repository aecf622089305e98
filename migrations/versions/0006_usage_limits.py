"""Monthly limits of what an organization uses, each of which alerts as it is approached.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import context, op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

CURRENT_ORG = "nullif(current_setting('voicedesk.org_id', true), '')::uuid"


def upgrade() -> None:
    """The table; a tenant reads its own, operators' commands write."""
    roles = context.config.attributes["roles"]
    op.create_table(
        "usage_limits",
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("most", sa.Numeric(12, 2), nullable=False),
        sa.CheckConstraint("kind IN ('cost', 'minutes', 'texts')", name=op.f("ck_usage_limits_kind")),
        sa.CheckConstraint("most > 0", name=op.f("ck_usage_limits_most")),
        sa.ForeignKeyConstraint(
            ["org_id"], ["organizations.id"], name=op.f("fk_usage_limits_org_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("org_id", "kind", name=op.f("pk_usage_limits")),
    )
    op.execute("ALTER TABLE usage_limits ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE usage_limits FORCE ROW LEVEL SECURITY")
    op.execute(f"GRANT SELECT ON usage_limits TO {roles.tenant}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON usage_limits TO {roles.system}")
    op.execute(
        f"CREATE POLICY usage_limits_tenant ON usage_limits TO {roles.tenant}"
        f" USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
    )
    op.execute(f"CREATE POLICY usage_limits_system ON usage_limits TO {roles.system} USING (true) WITH CHECK (true)")


def downgrade() -> None:
    """Its policies and grants go with it."""
    op.drop_table("usage_limits")
