"""Platform integrations, verification modes, rotation, quarantine, and what moving in and out needs.

Revision ID: 0005
Revises: 0004
"""

from alembic import context, op
import sqlalchemy as sa

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CURRENT_ORG = "nullif(current_setting('voicedesk.org_id', true), '')::uuid"
MODES = "verification IN ('enforce', 'shadow', 'quarantine')"
# Deleting an organization is the system role's; these had no reason to lose rows until now.
DELETABLE = (
    "organizations",
    "api_keys",
    "integrations",
    "calls",
    "messages",
    "opt_outs",
    "appointments",
    "calendar_channels",
    "calendar_syncs",
    "busy_periods",
    "operator_actions",
)


def upgrade():
    roles = context.config.attributes["roles"]
    op.alter_column("integrations", "org_id", nullable=True)
    op.add_column("integrations", sa.Column("verification", sa.Text(), server_default="enforce", nullable=False))
    op.create_check_constraint(op.f("ck_integrations_verification"), "integrations", MODES)
    op.add_column("integrations", sa.Column("previous_credentials", sa.LargeBinary()))
    op.add_column("integrations", sa.Column("previous_until", sa.DateTime(timezone=True)))
    op.add_column("organizations", sa.Column("suspended_at", sa.DateTime(timezone=True)))
    op.add_column("organizations", sa.Column("ref", sa.Text()))
    op.create_unique_constraint(op.f("uq_organizations_ref"), "organizations", ["ref"])
    op.create_index("ix_messages_sid", "messages", ["provider_sid"])
    _create_tables(roles)
    op.execute(f"GRANT DELETE ON {', '.join(DELETABLE)} TO {roles.system}")
    op.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, DELETE ON TABLES TO {roles.system}")
    # An event that nobody owned gets its owner: the row, its payload and its key move, consent is recorded.
    op.execute(f"GRANT UPDATE (org_id) ON webhook_payloads, processed_webhook_events TO {roles.system}")
    op.execute(f"GRANT INSERT, UPDATE ON opt_outs TO {roles.system}")
    _claim_what_is_set(roles)


def _create_tables(roles):
    op.create_table(
        "routing_keys",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id"], ["organizations.id"], name=op.f("fk_routing_keys_org_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("kind", "value", name=op.f("pk_routing_keys")),
    )
    op.create_index("ix_routing_keys_org", "routing_keys", ["org_id"])
    op.execute("ALTER TABLE routing_keys ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE routing_keys FORCE ROW LEVEL SECURITY")
    op.execute(f"GRANT SELECT ON routing_keys TO {roles.tenant}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON routing_keys TO {roles.system}")
    op.execute(
        f"CREATE POLICY routing_keys_tenant ON routing_keys TO {roles.tenant}"
        f" USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
    )
    op.execute(f"CREATE POLICY routing_keys_system ON routing_keys TO {roles.system} USING (true) WITH CHECK (true)")
    op.create_table(
        "verification_refusals",
        sa.Column("integration_id", sa.Uuid(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("times", sa.BigInteger(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["integration_id"],
            ["integrations.id"],
            name=op.f("fk_verification_refusals_integration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("integration_id", "code", name=op.f("pk_verification_refusals")),
    )
    op.create_table(
        "quarantined_webhooks",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("integration_id", sa.Uuid(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["integration_id"],
            ["integrations.id"],
            name=op.f("fk_quarantined_webhooks_integration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantined_webhooks")),
    )
    op.create_index("ix_quarantined_webhooks_integration", "quarantined_webhooks", ["integration_id", "id"])
    for table in ("verification_refusals", "quarantined_webhooks"):
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {roles.system}")


def _claim_what_is_set(roles):
    """Existing organizations keep their numbers and assistants; where two share one, the older has it."""
    op.execute(f"SET LOCAL ROLE {roles.system}")
    for kind, column in (("phone_number", "phone_number"), ("vapi_assistant", "assistant_id")):
        op.execute(
            f"INSERT INTO routing_keys (kind, value, org_id) SELECT '{kind}', {column}, id FROM organizations"
            f" WHERE {column} IS NOT NULL ORDER BY created_at ON CONFLICT DO NOTHING"
        )
    op.execute("RESET ROLE")


def downgrade():
    roles = context.config.attributes["roles"]
    op.execute(f"SET LOCAL ROLE {roles.system}")
    op.execute("DELETE FROM integrations WHERE org_id IS NULL")
    op.execute("RESET ROLE")
    op.execute(f"REVOKE INSERT, UPDATE ON opt_outs FROM {roles.system}")
    op.execute(f"REVOKE UPDATE (org_id) ON webhook_payloads, processed_webhook_events FROM {roles.system}")
    op.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT, DELETE ON TABLES FROM {roles.system}")
    op.execute(f"REVOKE DELETE ON {', '.join(DELETABLE)} FROM {roles.system}")
    for table in ("quarantined_webhooks", "verification_refusals", "routing_keys"):
        op.drop_table(table)
    op.drop_index("ix_messages_sid", "messages")
    op.drop_constraint(op.f("uq_organizations_ref"), "organizations", type_="unique")
    op.drop_column("organizations", "ref")
    op.drop_column("organizations", "suspended_at")
    op.drop_column("integrations", "previous_until")
    op.drop_column("integrations", "previous_credentials")
    op.drop_constraint(op.f("ck_integrations_verification"), "integrations", type_="check")
    op.drop_column("integrations", "verification")
    op.alter_column("integrations", "org_id", nullable=False)
