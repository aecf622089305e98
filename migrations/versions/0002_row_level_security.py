"""Row-level security: who may do what to which rows.

Every table with an ``org_id`` (and organizations itself) is under forced row-level security. The
tenant role sees the organization that is set and no other; the system role sees all and writes only
what belongs to the queue and to configuration; the intake role adds to the inbox and reads keys.

Revision ID: 0002
Revises: 0001
"""

from alembic import context, op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CURRENT_ORG = "nullif(current_setting('voicedesk.org_id', true), '')::uuid"

# table: (what the tenant role may do, what the system role may do)
TABLES = {
    "organizations": ("SELECT", "SELECT, INSERT, UPDATE"),
    "api_keys": ("SELECT", "SELECT, INSERT, UPDATE"),
    "integrations": ("SELECT", "SELECT, INSERT, UPDATE"),
    "processed_webhook_events": ("SELECT", "SELECT, INSERT, DELETE"),
    "webhook_delivery_log": ("SELECT, INSERT", "SELECT, INSERT, UPDATE, DELETE"),
    "webhook_payloads": ("SELECT, INSERT", "SELECT, INSERT, DELETE"),
    "delivery_attempts": ("SELECT", "SELECT, INSERT, UPDATE, DELETE"),
    "lanes": ("SELECT, INSERT, UPDATE (due_at)", "SELECT, INSERT, UPDATE, DELETE"),
    "calls": ("SELECT, INSERT, UPDATE", "SELECT"),
    "messages": ("SELECT, INSERT, UPDATE", "SELECT"),
    "opt_outs": ("SELECT, INSERT, UPDATE", "SELECT"),
    "appointments": ("SELECT, INSERT, UPDATE", "SELECT"),
    "calendar_channels": ("SELECT, INSERT, UPDATE", "SELECT"),
    "tool_answers": ("SELECT, INSERT, UPDATE", "SELECT, DELETE"),
    "operator_actions": ("SELECT, INSERT", "SELECT, INSERT"),
}

# table: (grants, commands that need a policy)
INTAKE = {
    "processed_webhook_events": ("INSERT, SELECT (integration_id, event_key, org_id)", ("INSERT", "SELECT")),
    "webhook_delivery_log": (
        "INSERT, SELECT (id, org_id, integration_id, event_key)",
        ("INSERT", "SELECT"),
    ),
    "webhook_payloads": ("INSERT", ("INSERT",)),
    "lanes": ("INSERT, SELECT (org_id, lane_key, due_at), UPDATE (due_at)", ("INSERT", "SELECT", "UPDATE")),
    "opt_outs": (
        "INSERT, SELECT (org_id, address, opted_out, source), UPDATE (opted_out, source, changed_at)",
        ("INSERT", "SELECT", "UPDATE"),
    ),
}


def upgrade():
    roles = context.config.attributes["roles"]
    op.execute(f"GRANT USAGE ON SCHEMA public TO {', '.join(roles.all)}")
    for table, (tenant, system) in TABLES.items():
        org = "id" if table == "organizations" else "org_id"
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"GRANT {tenant} ON {table} TO {roles.tenant}")
        op.execute(f"GRANT {system} ON {table} TO {roles.system}")
        op.execute(
            f"CREATE POLICY {table}_tenant ON {table} TO {roles.tenant}"
            f" USING ({org} = {CURRENT_ORG}) WITH CHECK ({org} = {CURRENT_ORG})"
        )
        op.execute(f"CREATE POLICY {table}_system ON {table} TO {roles.system} USING (true) WITH CHECK (true)")
    for table, (grants, commands) in INTAKE.items():
        op.execute(f"GRANT {grants} ON {table} TO {roles.intake}")
        for command in commands:
            clause = {"INSERT": "WITH CHECK (true)", "SELECT": "USING (true)"}.get(
                command, "USING (true) WITH CHECK (true)"
            )
            op.execute(
                f"CREATE POLICY {table}_intake_{command.lower()} ON {table} FOR {command} TO {roles.intake} {clause}"
            )
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON singletons TO {roles.system}")
    op.execute(f"GRANT USAGE ON SEQUENCE lane_tokens TO {roles.system}")
    op.execute(f"GRANT SELECT ON alembic_version TO {roles.system}")


def downgrade():
    roles = context.config.attributes["roles"]
    op.execute(f"REVOKE ALL ON alembic_version, singletons FROM {roles.system}")
    op.execute(f"REVOKE ALL ON SEQUENCE lane_tokens FROM {roles.system}")
    for table in INTAKE:
        for (policy,) in op.get_bind().exec_driver_sql(
            f"SELECT policyname FROM pg_policies WHERE tablename = '{table}' AND policyname LIKE '%%_intake_%%'"
        ):
            op.execute(f"DROP POLICY {policy} ON {table}")
        op.execute(f"REVOKE ALL ON {table} FROM {roles.intake}")
    for table in TABLES:
        op.execute(f"DROP POLICY {table}_tenant ON {table}")
        op.execute(f"DROP POLICY {table}_system ON {table}")
        op.execute(f"REVOKE ALL ON {table} FROM {roles.tenant}, {roles.system}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    op.execute(f"REVOKE USAGE ON SCHEMA public FROM {', '.join(roles.all)}")
