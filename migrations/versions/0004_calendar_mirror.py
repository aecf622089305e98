"""The calendar both ways: where each sync stands, what people keep busy, channels, and conflicts.

Revision ID: 0004
Revises: 0003
"""

from alembic import context, op
import sqlalchemy as sa

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CURRENT_ORG = "nullif(current_setting('voicedesk.org_id', true), '')::uuid"
TENANT_TABLES = {  # table: (what the tenant role may do, what the system role may do)
    "calendar_syncs": ("SELECT, INSERT, UPDATE", "SELECT"),
    "busy_periods": ("SELECT, INSERT, UPDATE, DELETE", "SELECT"),
}
CONFLICTS = "external_conflict OR conflict_since IS NOT NULL"


def upgrade():
    roles = context.config.attributes["roles"]
    _create_tables()
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
    # That a sync is due is a fact of the calendar, not of each of its channels.
    op.drop_column("calendar_channels", "sync_requested_at")
    op.add_column("calendar_channels", sa.Column("calendar_id", sa.Text()))
    op.add_column("calendar_channels", sa.Column("heard_at", sa.DateTime(timezone=True)))
    op.add_column("calendar_channels", sa.Column("stopped_at", sa.DateTime(timezone=True)))
    op.execute(f"GRANT DELETE ON calendar_channels TO {roles.tenant}")
    op.add_column("appointments", sa.Column("google_updated_at", sa.DateTime(timezone=True)))
    op.add_column("appointments", sa.Column("conflict_since", sa.DateTime(timezone=True)))
    op.create_index("ix_appointments_conflicts", "appointments", ["ends_at"], postgresql_where=sa.text(CONFLICTS))
    op.add_column("tool_answers", sa.Column("calendar_source", sa.Text()))


def _create_tables():
    op.create_table(
        "calendar_syncs",
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("integration_id", sa.Uuid(), nullable=False),
        sa.Column("calendar_id", sa.Text()),
        sa.Column("sync_token", sa.Text()),
        sa.Column("run", sa.Integer(), server_default="0", nullable=False),
        *(
            sa.Column(name, sa.DateTime(timezone=True))
            for name in ("sync_requested_at", "begun_at", "synced_at", "full_synced_at", "mirrored_until")
        ),
        sa.Column("next_sync_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("next_watch_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "integration_id"],
            ["integrations.org_id", "integrations.id"],
            name=op.f("fk_calendar_syncs_org_id_integration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "integration_id", name=op.f("pk_calendar_syncs")),
    )
    op.create_table(
        "busy_periods",
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("integration_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("starts_at < ends_at", name=op.f("ck_busy_periods_times")),
        sa.ForeignKeyConstraint(
            ["org_id", "integration_id"],
            ["calendar_syncs.org_id", "calendar_syncs.integration_id"],
            name=op.f("fk_busy_periods_org_id_integration_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "integration_id", "event_id", name=op.f("pk_busy_periods")),
    )
    op.create_index("ix_busy_periods_ends", "busy_periods", ["org_id", "integration_id", "ends_at"])


def downgrade():
    roles = context.config.attributes["roles"]
    op.drop_column("tool_answers", "calendar_source")
    op.drop_index("ix_appointments_conflicts", "appointments")
    op.drop_column("appointments", "conflict_since")
    op.drop_column("appointments", "google_updated_at")
    op.execute(f"REVOKE DELETE ON calendar_channels FROM {roles.tenant}")
    op.drop_column("calendar_channels", "stopped_at")
    op.drop_column("calendar_channels", "heard_at")
    op.drop_column("calendar_channels", "calendar_id")
    op.add_column("calendar_channels", sa.Column("sync_requested_at", sa.DateTime(timezone=True)))
    for table in ("busy_periods", "calendar_syncs"):
        op.drop_table(table)
