"""The ledger, alerts, quotas, and what API keys need to be used by programs.

Revision ID: 0003
Revises: 0002
"""

from alembic import context, op
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CURRENT_ORG = "nullif(current_setting('voicedesk.org_id', true), '')::uuid"
TENANT_TABLES = {  # table: (what the tenant role may do, what the system role may do)
    "ledger_entries": ("SELECT, INSERT", "SELECT, INSERT, DELETE"),
    "quota_overruns": ("SELECT", "SELECT, INSERT, UPDATE, DELETE"),
}
INDEXES = (
    ("ix_deliveries_dead", "webhook_delivery_log", ["finished_at"], "status = 'dead'"),
    ("ix_deliveries_event", "webhook_delivery_log", ["event_key"], None),
    ("ix_deliveries_story", "webhook_delivery_log", [sa.text("lane_key text_pattern_ops"), "id"], None),
    ("ix_delivery_attempts_refused", "delivery_attempts", ["ended_at"], "error_code = 'credentials_refused'"),
    ("ix_messages_remote", "messages", ["remote_address", "created_at"], None),
    ("ix_calls_customer", "calls", ["customer_number", "created_at"], None),
    ("ix_appointments_customer", "appointments", ["phone"], None),
    ("ix_tool_answers_started", "tool_answers", ["started_at"], None),
)


def upgrade():
    roles = context.config.attributes["roles"]
    _create_tables()
    op.add_column("organizations", sa.Column("api_quota_per_hour", sa.Integer()))
    op.add_column("organizations", sa.Column("webhook_quota_per_hour", sa.Integer()))
    op.add_column("api_keys", sa.Column("label", sa.Text()))
    op.add_column(
        "api_keys",
        sa.Column("scopes", postgresql.JSONB(), server_default='["read", "write"]', nullable=False),
    )
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime(timezone=True)))
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True)))
    for name, table, columns, where in INDEXES:
        op.create_index(name, table, columns, postgresql_where=sa.text(where) if where else None)
    for table, (tenant, system) in TENANT_TABLES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"GRANT {tenant} ON {table} TO {roles.tenant}")
        op.execute(f"GRANT {system} ON {table} TO {roles.system}")
        op.execute(
            f"CREATE POLICY {table}_tenant ON {table} TO {roles.tenant}"
            f" USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
        )
        op.execute(f"CREATE POLICY {table}_system ON {table} TO {roles.system} USING (true) WITH CHECK (true)")
    op.execute(f"GRANT INSERT ON ledger_entries TO {roles.intake}")
    op.execute(f"CREATE POLICY ledger_entries_intake_insert ON ledger_entries FOR INSERT TO {roles.intake} WITH CHECK (true)")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON alerts TO {roles.system}")
    _open_the_books(roles)


def _create_tables():
    op.create_table(
        "ledger_entries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        *(
            sa.Column(side, sa.Integer(), server_default="0", nullable=False)
            for side in ("accepted", "processed", "dead", "skipped", "erased")
        ),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_entries")),
    )
    op.create_index("ix_ledger_entries_at", "ledger_entries", ["at"])
    op.create_table(
        "alerts",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("facts", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("told_at", sa.DateTime(timezone=True)),
        sa.Column("end_told_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_alerts")),
    )
    op.create_table(
        "quota_overruns",
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("accepted", sa.Integer(), nullable=False),
        sa.Column("quota", sa.Integer(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id"], ["organizations.id"], name=op.f("fk_quota_overruns_org_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("org_id", name=op.f("pk_quota_overruns")),
    )


def _open_the_books(roles):
    """Enter what is there already. As the system role: row-level security hides all rows from the owner."""
    op.execute(f"SET LOCAL ROLE {roles.system}")
    op.execute(
        "INSERT INTO ledger_entries (org_id, provider, accepted, processed, dead, skipped, at)"
        " SELECT org_id, provider, count(*), count(*) FILTER (WHERE status = 'processed'),"
        " count(*) FILTER (WHERE status = 'dead'), count(*) FILTER (WHERE status = 'skipped'), 'epoch'"
        " FROM webhook_delivery_log GROUP BY org_id, provider"
    )
    op.execute("RESET ROLE")


def downgrade():
    for name, table, _, _ in reversed(INDEXES):
        op.drop_index(name, table)
    for table, column in (
        ("api_keys", "last_used_at"),
        ("api_keys", "expires_at"),
        ("api_keys", "scopes"),
        ("api_keys", "label"),
        ("organizations", "webhook_quota_per_hour"),
        ("organizations", "api_quota_per_hour"),
    ):
        op.drop_column(table, column)
    for table in ("quota_overruns", "alerts", "ledger_entries"):
        op.drop_table(table)
