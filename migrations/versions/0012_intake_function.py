"""Intake as one function: PostgreSQL plans its statements once a connection instead of once a group.

Revision ID: 0012
Revises: 0011

It runs as whoever calls it, so the intake role's grants and policies hold in it as they did outside of it. The order
of its statements is the order of a lane: the lane row is locked before the delivery ids are drawn, both sorted by key
(or two groups would deadlock), so that within a lane id order is commit order. The second statement's snapshot is
taken under the lanes' locks: a volatile function takes a new one for each statement.
"""

from alembic import context, op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# The WHERE after the lanes is never true; it is there because a false one still locks the row.
ACCEPT = """
CREATE FUNCTION accept_webhooks(given_lanes jsonb, given_events jsonb)
RETURNS TABLE (of_integration uuid, of_key text, as_delivery bigint) LANGUAGE plpgsql VOLATILE AS $accept$
BEGIN
    INSERT INTO lanes (org_id, lane_key, due_at)
    SELECT DISTINCT ON (org_id, lane_key) org_id, lane_key, coalesce(due_at, now())
    FROM jsonb_to_recordset(given_lanes) AS l(org_id uuid, lane_key text, due_at timestamptz)
    ORDER BY org_id, lane_key, due_at NULLS FIRST
    ON CONFLICT (org_id, lane_key) DO UPDATE SET due_at = now() WHERE lanes.due_at IS NULL;
    RETURN QUERY
    WITH input AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(given_events) AS e(
            ord int, org_id uuid, integration_id uuid, provider text, type text, event_key text, lane_key text,
            occurred_at timestamptz, received_at timestamptz, due_at timestamptz, status text, error_code text, note text,
            payload jsonb, raw text, answer jsonb, consent_address text, opted_out bool)
    ), fresh AS (
        INSERT INTO processed_webhook_events (integration_id, event_key, org_id)
        SELECT integration_id, event_key, org_id FROM input ORDER BY integration_id, event_key
        ON CONFLICT DO NOTHING RETURNING integration_id, event_key
    ), booked AS (
        INSERT INTO ledger_entries (org_id, provider, accepted, processed, dead, skipped)
        SELECT i.org_id, i.provider, count(*), count(*) FILTER (WHERE i.status = 'processed'),
               count(*) FILTER (WHERE i.status = 'dead'), count(*) FILTER (WHERE i.status = 'skipped')
        FROM input i JOIN fresh f USING (integration_id, event_key) GROUP BY i.org_id, i.provider
    ), logged AS (
        INSERT INTO webhook_delivery_log (org_id, integration_id, provider, type, event_key, lane_key, status, occurred_at,
            next_attempt_at, finished_at, error_code, note, received_at)
        SELECT i.org_id, i.integration_id, i.provider, i.type, i.event_key, i.lane_key, i.status, i.occurred_at,
            coalesce(i.due_at, now()), CASE WHEN i.status <> 'received' THEN now() END, i.error_code, i.note,
            least(i.received_at, now()) FROM input i JOIN fresh f USING (integration_id, event_key) ORDER BY i.ord
        RETURNING id, org_id, integration_id, event_key
    ), stored AS (
        INSERT INTO webhook_payloads (delivery_id, org_id, body, raw, answer)
        SELECT l.id, l.org_id, i.payload, decode(i.raw, 'base64'), i.answer
        FROM logged l JOIN input i USING (integration_id, event_key)
    ), consent AS (
        INSERT INTO opt_outs (org_id, address, opted_out, source)
        SELECT DISTINCT ON (i.org_id, i.consent_address) i.org_id, i.consent_address, i.opted_out, 'message'
        FROM input i JOIN fresh f USING (integration_id, event_key) WHERE i.consent_address IS NOT NULL
        ORDER BY i.org_id, i.consent_address, i.ord DESC
        ON CONFLICT (org_id, address) DO UPDATE
        SET opted_out = excluded.opted_out, source = excluded.source, changed_at = now()
    )
    SELECT l.integration_id, l.event_key, l.id FROM logged l;
END
$accept$
"""


def upgrade():
    roles = context.config.attributes["roles"]
    op.execute(ACCEPT)
    op.execute("REVOKE EXECUTE ON FUNCTION accept_webhooks(jsonb, jsonb) FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION accept_webhooks(jsonb, jsonb) TO {roles.intake}")


def downgrade():
    op.execute("DROP FUNCTION accept_webhooks(jsonb, jsonb)")
