"""Booking rules: services, staff and rooms, closures; buffers and seats guarded by the slots' constraint.

Revision ID: 0007
Revises: 0006
"""

from alembic import context, op
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

CURRENT_ORG = "nullif(current_setting('voicedesk.org_id', true), '')::uuid"
TABLES = ("services", "resources", "resource_services", "closures")
HOLDING = "status IN ('pending', 'booked') AND NOT external_conflict"
# A moment less an interval depends on the session's time zone, the same in UTC's wall-clock time does not.
HOLDS_FROM = "(starts_at AT TIME ZONE 'UTC' - buffer_before * interval '1 minute') AT TIME ZONE 'UTC'"
HOLDS_UNTIL = "(ends_at AT TIME ZONE 'UTC' + buffer_after * interval '1 minute') AT TIME ZONE 'UTC'"


def upgrade():
    roles = context.config.attributes["roles"]
    _create_tables()
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"GRANT SELECT ON {table} TO {roles.tenant}")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {roles.system}")
        op.execute(
            f"CREATE POLICY {table}_tenant ON {table} TO {roles.tenant}"
            f" USING (org_id = {CURRENT_ORG}) WITH CHECK (org_id = {CURRENT_ORG})"
        )
        op.execute(f"CREATE POLICY {table}_system ON {table} TO {roles.system} USING (true) WITH CHECK (true)")
    op.add_column("organizations", sa.Column("notice_minutes", sa.Integer(), server_default="0", nullable=False))
    op.add_column("organizations", sa.Column("ahead_days", sa.SmallInteger()))
    op.add_column("organizations", sa.Column("seats", sa.SmallInteger(), server_default="1", nullable=False))
    op.add_column("appointments", sa.Column("service_id", sa.Uuid()))
    op.add_column("appointments", sa.Column("resource_id", sa.Uuid()))
    for name, default in (("seat", "1"), ("buffer_before", "0"), ("buffer_after", "0")):
        op.add_column("appointments", sa.Column(name, sa.SmallInteger(), server_default=default, nullable=False))
    for name, reckoned in (("holds_from", HOLDS_FROM), ("holds_until", HOLDS_UNTIL)):
        op.add_column(
            "appointments", sa.Column(name, sa.DateTime(timezone=True), sa.Computed(reckoned, persisted=True))
        )
    for column, table in (("service_id", "services"), ("resource_id", "resources")):
        op.create_foreign_key(
            f"fk_appointments_org_id_{column}", "appointments", table, ["org_id", column], ["org_id", "id"]
        )
        op.create_index(f"ix_appointments_{column}", "appointments", ["org_id", column])
    op.drop_constraint("ex_appointments_slot", "appointments")
    _exclude("coalesce(resource_id::text, calendar_id) WITH =, seat WITH =, tstzrange(holds_from, holds_until) WITH &&")


def downgrade():
    op.drop_constraint("ex_appointments_slot", "appointments")
    # What was side by side excludes each other again: the later ones stay, and exclude nobody.
    op.execute("ALTER TABLE appointments NO FORCE ROW LEVEL SECURITY")
    op.execute(
        "UPDATE appointments one SET external_conflict = true"
        " WHERE one.status IN ('pending', 'booked') AND EXISTS (SELECT FROM appointments other"
        " WHERE other.org_id = one.org_id AND other.calendar_id = one.calendar_id AND other.id < one.id"
        " AND other.status IN ('pending', 'booked')"
        " AND tstzrange(other.starts_at, other.ends_at) && tstzrange(one.starts_at, one.ends_at))"
    )
    op.execute("ALTER TABLE appointments FORCE ROW LEVEL SECURITY")
    _exclude("calendar_id WITH =, tstzrange(starts_at, ends_at) WITH &&")
    for name in ("holds_from", "holds_until", "seat", "buffer_before", "buffer_after", "service_id", "resource_id"):
        op.drop_column("appointments", name)
    for name in ("notice_minutes", "ahead_days", "seats"):
        op.drop_column("organizations", name)
    for table in reversed(TABLES):
        op.drop_table(table)


def _exclude(what):
    op.execute(
        "ALTER TABLE appointments ADD CONSTRAINT ex_appointments_slot"
        f" EXCLUDE USING gist (org_id WITH =, {what}) WHERE ({HOLDING})"
    )


def _create_tables():
    op.create_table(
        "services",
        *_head("services"),
        sa.Column("minutes", sa.SmallInteger(), nullable=False),
        sa.Column("buffer_before", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("buffer_after", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("price", sa.Text()),
        sa.Column("active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.CheckConstraint(
            "minutes > 0 AND buffer_before >= 0 AND buffer_after >= 0", name=op.f("ck_services_minutes")
        ),
        sa.UniqueConstraint("org_id", "id", name=op.f("uq_services_org_id_id")),
    )
    op.create_table(
        "resources",
        *_head("resources"),
        sa.Column("kind", sa.Text(), server_default="staff", nullable=False),
        sa.Column("calendar_id", sa.Text()),
        sa.Column("opening_hours", postgresql.JSONB()),
        sa.Column("seats", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.CheckConstraint("kind IN ('staff', 'room')", name=op.f("ck_resources_kind")),
        sa.CheckConstraint("seats > 0", name=op.f("ck_resources_seats")),
        sa.UniqueConstraint("org_id", "id", name=op.f("uq_resources_org_id_id")),
    )
    for table in ("services", "resources"):
        op.create_index(f"uq_{table}_name", table, ["org_id", sa.text("lower(name)")], unique=True)
    op.create_table(
        "resource_services",
        *(sa.Column(name, sa.Uuid(), nullable=False) for name in ("org_id", "resource_id", "service_id")),
        _reference("resource_services", "resource_id", "resources"),
        _reference("resource_services", "service_id", "services"),
        sa.PrimaryKeyConstraint("org_id", "resource_id", "service_id", name=op.f("pk_resource_services")),
    )
    op.create_table(
        "closures",
        *_head("closures"),
        sa.Column("resource_id", sa.Uuid()),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("starts_at < ends_at", name=op.f("ck_closures_times")),
        _reference("closures", "resource_id", "resources"),
    )
    op.create_index("ix_closures_ends", "closures", ["org_id", "ends_at"])


def _head(table):
    return (
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["organizations.id"], name=op.f(f"fk_{table}_org_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    )


def _reference(table, column, other):
    return sa.ForeignKeyConstraint(
        ["org_id", column],
        [f"{other}.org_id", f"{other}.id"],
        name=op.f(f"fk_{table}_org_id_{column}"),
        ondelete="CASCADE",
    )
