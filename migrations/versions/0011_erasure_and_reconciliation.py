"""Erasing a person and comparing with the providers: a key for aliases, marks on calls, how far each was compared.

Revision ID: 0011
Revises: 0010
"""

from alembic import context, op
import sqlalchemy as sa

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# What a person may be named in: the system role, which erases, may rewrite it.
REWRITABLE = ("calls", "messages", "appointments", "tool_answers", "webhook_payloads")


def upgrade():
    roles = context.config.attributes["roles"]
    op.add_column("calls", sa.Column("erased_at", sa.DateTime(timezone=True)))
    op.create_table(
        "house_keys",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_house_keys")),
    )
    op.create_table(
        "reconciliations",
        sa.Column("integration_id", sa.Uuid(), nullable=False),
        sa.Column("compared_until", sa.DateTime(timezone=True)),
        sa.Column("ran_at", sa.DateTime(timezone=True)),
        sa.Column("theirs", sa.Integer(), server_default="0", nullable=False),
        sa.Column("missing", sa.Integer(), server_default="0", nullable=False),
        sa.Column("missing_at", sa.DateTime(timezone=True)),
        sa.Column("error_code", sa.Text()),
        sa.ForeignKeyConstraint(
            ["integration_id"],
            ["integrations.id"],
            name=op.f("fk_reconciliations_integration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("integration_id", name=op.f("pk_reconciliations")),
    )
    op.execute(f"GRANT SELECT ON house_keys TO {roles.tenant}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON house_keys TO {roles.system}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON reconciliations TO {roles.system}")
    op.execute(f"GRANT UPDATE ON {', '.join(REWRITABLE)} TO {roles.system}")


def downgrade():
    roles = context.config.attributes["roles"]
    op.execute(f"REVOKE UPDATE ON {', '.join(REWRITABLE)} FROM {roles.system}")
    op.execute(f"GRANT UPDATE (org_id) ON webhook_payloads TO {roles.system}")  # as 0005 had it
    op.drop_table("reconciliations")
    op.drop_table("house_keys")
    op.drop_column("calls", "erased_at")
