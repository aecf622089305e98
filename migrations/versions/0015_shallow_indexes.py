r"""An accept reads little more with ten million rows than with ten thousand (decision 60).

Revision ID: 0015
Revises: 0014

Keys are told apart by sixteen bytes of a hash, not by a uuid and a text: the index is a level less deep, and each key
is looked for in it and put into it. An event is found by its whole id alone, so that index is a hash, which has no
levels; and it has only what has ended, so that an accept writes into a small one of what is open and not into a page that
nobody has touched. A lane's deliveries share one entry. What hangs on deliveries goes with them by one statement for all that
go, where a foreign key looked each of them up when it came.

The table of keys (a day's events) is written anew, and the indexes are built with it locked: seconds a million rows.
"""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# A backslash is doubled, because bytea reads one as the beginning of an escape. All of it is immutable, so that it can
# be generated and is planned in place.
DIGEST = r"""
CREATE FUNCTION event_digest(integration_id uuid, event_key text) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN encode(substring(sha256(uuid_send(integration_id) || replace(event_key, '\', '\\')::bytea) FROM 1 FOR 16), 'hex')::uuid
"""
WHAT_HANGS = """
CREATE FUNCTION delete_what_hangs_on_deliveries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM webhook_payloads p USING gone g WHERE p.delivery_id = g.id AND p.org_id = g.org_id;
    DELETE FROM delivery_attempts a USING gone g WHERE a.delivery_id = g.id AND a.org_id = g.org_id;
    RETURN NULL;
END
$$
"""
TRIGGER = """
CREATE TRIGGER what_hangs_on_deliveries AFTER DELETE ON webhook_delivery_log
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION delete_what_hangs_on_deliveries()
"""
OPEN = "status IN ('received', 'processing', 'retrying')"
HANGING = ("webhook_payloads", "delivery_attempts")


def upgrade() -> None:
    """Each piece by itself; all together in one transaction."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(DIGEST)
    op.execute("ALTER TABLE processed_webhook_events DROP CONSTRAINT pk_processed_webhook_events")
    op.execute(
        "ALTER TABLE processed_webhook_events"
        " ADD digest uuid GENERATED ALWAYS AS (event_digest(integration_id, event_key)) STORED,"
        " ADD CONSTRAINT pk_processed_webhook_events PRIMARY KEY (digest)"
    )
    op.execute("DROP INDEX ix_deliveries_event, ix_deliveries_story")
    op.execute(f"CREATE INDEX ix_deliveries_event ON webhook_delivery_log USING hash (event_key) WHERE NOT ({OPEN})")
    # Every key is there; what matters is that only who asks for one can use it, and nobody reads all of it.
    op.execute(
        "CREATE INDEX ix_deliveries_event_open ON webhook_delivery_log (event_key)"
        f" WHERE event_key IS NOT NULL AND {OPEN}"
    )
    op.execute("CREATE INDEX ix_deliveries_story ON webhook_delivery_log (lane_key text_pattern_ops)")
    for table in HANGING:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT fk_{table}_org_id_delivery_id")
    op.execute(WHAT_HANGS)
    op.execute(TRIGGER)


def downgrade() -> None:
    """As it was."""
    op.execute("DROP TRIGGER what_hangs_on_deliveries ON webhook_delivery_log")
    op.execute("DROP FUNCTION delete_what_hangs_on_deliveries()")
    for table in HANGING:
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT fk_{table}_org_id_delivery_id FOREIGN KEY (org_id, delivery_id)"
            " REFERENCES webhook_delivery_log (org_id, id) ON DELETE CASCADE"
        )
    op.execute("DROP INDEX ix_deliveries_event, ix_deliveries_event_open, ix_deliveries_story")
    op.execute("CREATE INDEX ix_deliveries_event ON webhook_delivery_log (event_key)")
    op.execute("CREATE INDEX ix_deliveries_story ON webhook_delivery_log (lane_key text_pattern_ops, id)")
    op.execute("ALTER TABLE processed_webhook_events DROP COLUMN digest")
    op.execute(
        "ALTER TABLE processed_webhook_events"
        " ADD CONSTRAINT pk_processed_webhook_events PRIMARY KEY (integration_id, event_key)"
    )
    op.execute("DROP FUNCTION event_digest(uuid, text)")
