"""All tables: organizations, the inbox, and the business of calls, texts and appointments.

Revision ID: 0001
Revises: 
"""

from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade():
    # Trusted since 13: the owner of the database may create it. The slots' exclusion constraint needs it.
    op.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
    op.execute("CREATE SEQUENCE lane_tokens")
    op.create_table('appointments',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('org_id', sa.Uuid(), nullable=False),
    sa.Column('calendar_id', sa.Text(), nullable=False),
    sa.Column('starts_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ends_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('status', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('phone', sa.Text(), nullable=True),
    sa.Column('channel', sa.Text(), server_default='sms', nullable=False),
    sa.Column('notes', sa.Text(), nullable=True),
    sa.Column('call_id', sa.Text(), nullable=True),
    sa.Column('tool_call_id', sa.Text(), nullable=True),
    sa.Column('version', sa.SmallInteger(), server_default='1', nullable=False),
    sa.Column('texted_version', sa.SmallInteger(), server_default='0', nullable=False),
    sa.Column('promised_text', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('calendar_action', sa.Text(), nullable=True),
    sa.Column('creations', sa.SmallInteger(), server_default='1', nullable=False),
    sa.Column('creation_begun', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('google_event_id', sa.Text(), nullable=True),
    sa.Column('google_etag', sa.Text(), nullable=True),
    sa.Column('previous_starts_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('previous_ends_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('external_conflict', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('failure', sa.Text(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    postgresql.ExcludeConstraint((sa.column('org_id'), '='), (sa.column('calendar_id'), '='), (sa.text('tstzrange(starts_at, ends_at)'), '&&'), where=sa.text("status IN ('pending', 'booked') AND NOT external_conflict"), using='gist', name='ex_appointments_slot'),
    sa.CheckConstraint("status IN ('pending', 'booked', 'cancelled', 'failed')", name=op.f('ck_appointments_status')),
    sa.CheckConstraint('starts_at < ends_at', name=op.f('ck_appointments_times')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_appointments')),
    sa.UniqueConstraint('org_id', 'call_id', 'tool_call_id', name=op.f('uq_appointments_org_id_call_id_tool_call_id')),
    sa.UniqueConstraint('org_id', 'id', name=op.f('uq_appointments_org_id_id'))
    )
    op.create_index('ix_appointments_org_starts', 'appointments', ['org_id', 'starts_at'], unique=False)
    op.create_index('ix_appointments_phone', 'appointments', ['org_id', 'phone', 'starts_at'], unique=False)
    op.create_table('calls',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('org_id', sa.Uuid(), nullable=False),
    sa.Column('vapi_call_id', sa.Text(), nullable=False),
    sa.Column('provider_call_id', sa.Text(), nullable=True),
    sa.Column('type', sa.Text(), nullable=True),
    sa.Column('status', sa.Text(), nullable=False),
    sa.Column('assistant_id', sa.Text(), nullable=True),
    sa.Column('customer_number', sa.Text(), nullable=True),
    sa.Column('dialled_number', sa.Text(), nullable=True),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_reason', sa.Text(), nullable=True),
    sa.Column('duration_seconds', sa.Numeric(precision=12, scale=3), nullable=True),
    sa.Column('cost', sa.Numeric(precision=12, scale=6), nullable=True),
    sa.Column('summary', sa.Text(), nullable=True),
    sa.Column('transcript', sa.Text(), nullable=True),
    sa.Column('recording_url', sa.Text(), nullable=True),
    sa.Column('structured_data', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('success_evaluation', sa.Text(), nullable=True),
    sa.Column('reported_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_calls')),
    sa.UniqueConstraint('org_id', 'id', name=op.f('uq_calls_org_id_id')),
    sa.UniqueConstraint('org_id', 'vapi_call_id', name=op.f('uq_calls_org_id_vapi_call_id'))
    )
    op.create_index('ix_calls_org_created', 'calls', ['org_id', 'created_at'], unique=False)
    op.create_table('lanes',
    sa.Column('org_id', sa.Uuid(), nullable=False),
    sa.Column('lane_key', sa.Text(), nullable=False),
    sa.Column('due_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('token', sa.BigInteger(), nullable=True),
    sa.PrimaryKeyConstraint('org_id', 'lane_key', name=op.f('pk_lanes')),
    postgresql_with={'fillfactor': 70}
    )
    op.create_index('ix_lanes_turn', 'lanes', ['org_id', 'due_at'], unique=False)
    op.create_table('operator_actions',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('org_id', sa.Uuid(), nullable=False),
    sa.Column('actor', sa.Text(), nullable=False),
    sa.Column('action', sa.Text(), nullable=False),
    sa.Column('subject', sa.Text(), nullable=False),
    sa.Column('details', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_operator_actions'))
    )
    op.create_index(op.f('ix_operator_actions_org_id'), 'operator_actions', ['org_id'], unique=False)
    op.create_table('opt_outs',
    sa.Column('org_id', sa.Uuid(), nullable=False),
    sa.Column('address', sa.Text(), nullable=False),
    sa.Column('opted_out', sa.Boolean(), nullable=False),
    sa.Column('source', sa.Text(), nullable=False),
    sa.Column('changed_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('org_id', 'address', name=op.f('pk_opt_outs'))
    )
    op.create_table('organizations',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('timezone', sa.Text(), nullable=False),
    sa.Column('phone_number', sa.Text(), nullable=True),
    sa.Column('transfer_number', sa.Text(), nullable=True),
    sa.Column('assistant_id', sa.Text(), nullable=True),
    sa.Column('opening_hours', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('slot_minutes', sa.SmallInteger(), server_default='30', nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_organizations'))
    )
    op.create_table('processed_webhook_events',
    sa.Column('integration_id', sa.Uuid(), nullable=False),
    sa.Column('event_key', sa.Text(), nullable=False),
    sa.Column('org_id', sa.Uuid(), nullable=False),
    sa.Column('received_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('integration_id', 'event_key', name=op.f('pk_processed_webhook_events'))
    )
    op.create_table('singletons',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('holder', sa.Text(), nullable=False),
    sa.Column('until', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_singletons'))
    )
    op.create_table('tool_answers',
    sa.Column('org_id', sa.Uuid(), nullable=False),
    sa.Column('call_id', sa.Text(), nullable=False),
    sa.Column('tool_call_id', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('result', sa.Text(), nullable=True),
    sa.Column('started_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('answered_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('org_id', 'call_id', 'tool_call_id', name=op.f('pk_tool_answers'))
    )
    op.create_table('webhook_delivery_log',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('org_id', sa.Uuid(), nullable=False),
    sa.Column('integration_id', sa.Uuid(), nullable=True),
    sa.Column('provider', sa.Text(), nullable=False),
    sa.Column('type', sa.Text(), nullable=False),
    sa.Column('event_key', sa.Text(), nullable=False),
    sa.Column('lane_key', sa.Text(), nullable=False),
    sa.Column('status', sa.Text(), server_default='received', nullable=False),
    sa.Column('attempts', sa.SmallInteger(), server_default='0', nullable=False),
    sa.Column('crashes', sa.SmallInteger(), server_default='0', nullable=False),
    sa.Column('received_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('occurred_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('next_attempt_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('running_since', sa.DateTime(timezone=True), nullable=True),
    sa.Column('held_since', sa.DateTime(timezone=True), nullable=True),
    sa.Column('set_aside_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('waiting_on', sa.Text(), nullable=True),
    sa.Column('finished_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('error_code', sa.Text(), nullable=True),
    sa.Column('note', sa.Text(), nullable=True),
    sa.CheckConstraint("status IN ('received', 'processing', 'retrying', 'processed', 'skipped', 'dead')", name=op.f('ck_webhook_delivery_log_status')),
    sa.PrimaryKeyConstraint('id', 'org_id', name=op.f('pk_webhook_delivery_log'))
    )
    op.create_index('ix_deliveries_finished', 'webhook_delivery_log', ['finished_at'], unique=False, postgresql_where=sa.text('finished_at IS NOT NULL'))
    op.create_index('ix_deliveries_lane', 'webhook_delivery_log', ['org_id', 'lane_key', 'id'], unique=False, postgresql_where=sa.text("status IN ('received', 'processing', 'retrying')"))
    op.create_index('ix_deliveries_org', 'webhook_delivery_log', ['org_id', 'id'], unique=False)
    op.create_index('ix_deliveries_waiting', 'webhook_delivery_log', ['waiting_on', 'id'], unique=False, postgresql_where=sa.text('waiting_on IS NOT NULL'))
    op.create_table('api_keys',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('org_id', sa.Uuid(), nullable=False),
    sa.Column('prefix', sa.Text(), nullable=False),
    sa.Column('key_hash', sa.Text(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('revoked_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['org_id'], ['organizations.id'], name=op.f('fk_api_keys_org_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_api_keys')),
    sa.UniqueConstraint('key_hash', name=op.f('uq_api_keys_key_hash'))
    )
    op.create_index(op.f('ix_api_keys_org_id'), 'api_keys', ['org_id'], unique=False)
    op.create_table('delivery_attempts',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('org_id', sa.Uuid(), nullable=False),
    sa.Column('delivery_id', sa.BigInteger(), nullable=False),
    sa.Column('number', sa.SmallInteger(), nullable=False),
    sa.Column('lane_token', sa.BigInteger(), nullable=False),
    sa.Column('process', sa.Text(), nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('duration_ms', sa.Integer(), nullable=True),
    sa.Column('outcome', sa.Text(), nullable=True),
    sa.Column('error_code', sa.Text(), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['org_id', 'delivery_id'], ['webhook_delivery_log.org_id', 'webhook_delivery_log.id'], name=op.f('fk_delivery_attempts_org_id_delivery_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_delivery_attempts'))
    )
    op.create_index('ix_delivery_attempts_delivery', 'delivery_attempts', ['org_id', 'delivery_id', 'id'], unique=False)
    op.create_table('integrations',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('org_id', sa.Uuid(), nullable=False),
    sa.Column('provider', sa.Text(), nullable=False),
    sa.Column('token', sa.Text(), nullable=False),
    sa.Column('credentials', sa.LargeBinary(), nullable=False),
    sa.Column('settings', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('disabled_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['org_id'], ['organizations.id'], name=op.f('fk_integrations_org_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_integrations')),
    sa.UniqueConstraint('org_id', 'id', name=op.f('uq_integrations_org_id_id')),
    sa.UniqueConstraint('token', name=op.f('uq_integrations_token'))
    )
    op.create_table('messages',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('org_id', sa.Uuid(), nullable=False),
    sa.Column('direction', sa.Text(), nullable=False),
    sa.Column('channel', sa.Text(), nullable=False),
    sa.Column('remote_address', sa.Text(), nullable=False),
    sa.Column('own_address', sa.Text(), nullable=True),
    sa.Column('body', sa.Text(), nullable=False),
    sa.Column('media', postgresql.JSONB(astext_type=sa.Text()), server_default='[]', nullable=False),
    sa.Column('status', sa.Text(), nullable=False),
    sa.Column('provider_status', sa.Text(), nullable=True),
    sa.Column('provider_sid', sa.Text(), nullable=True),
    sa.Column('idempotency_key', sa.Text(), nullable=True),
    sa.Column('purpose', sa.Text(), nullable=True),
    sa.Column('appointment_id', sa.Uuid(), nullable=True),
    sa.Column('call_id', sa.Text(), nullable=True),
    sa.Column('profile_name', sa.Text(), nullable=True),
    sa.Column('error_code', sa.Text(), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('sends', sa.SmallInteger(), server_default='0', nullable=False),
    sa.Column('lookups', sa.SmallInteger(), server_default='0', nullable=False),
    sa.Column('sending_since', sa.DateTime(timezone=True), nullable=True),
    sa.Column('looked_up_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("channel IN ('sms', 'whatsapp')", name=op.f('ck_messages_channel')),
    sa.CheckConstraint("direction IN ('inbound', 'outbound')", name=op.f('ck_messages_direction')),
    sa.ForeignKeyConstraint(['org_id', 'appointment_id'], ['appointments.org_id', 'appointments.id'], name=op.f('fk_messages_org_id_appointment_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_messages')),
    sa.UniqueConstraint('org_id', 'id', name=op.f('uq_messages_org_id_id')),
    sa.UniqueConstraint('org_id', 'idempotency_key', name=op.f('uq_messages_org_id_idempotency_key')),
    sa.UniqueConstraint('org_id', 'provider_sid', name=op.f('uq_messages_org_id_provider_sid'))
    )
    op.create_index('ix_messages_org_created', 'messages', ['org_id', 'created_at'], unique=False)
    op.create_index('ix_messages_unsettled', 'messages', ['sending_since'], unique=False, postgresql_where=sa.text("status IN ('sending', 'unknown')"))
    op.create_table('webhook_payloads',
    sa.Column('delivery_id', sa.BigInteger(), nullable=False),
    sa.Column('org_id', sa.Uuid(), nullable=False),
    sa.Column('body', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('raw', sa.LargeBinary(), nullable=True),
    sa.Column('answer', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.ForeignKeyConstraint(['org_id', 'delivery_id'], ['webhook_delivery_log.org_id', 'webhook_delivery_log.id'], name=op.f('fk_webhook_payloads_org_id_delivery_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('delivery_id', 'org_id', name=op.f('pk_webhook_payloads'))
    )
    op.create_table('calendar_channels',
    sa.Column('org_id', sa.Uuid(), nullable=False),
    sa.Column('integration_id', sa.Uuid(), nullable=False),
    sa.Column('channel_id', sa.Text(), nullable=False),
    sa.Column('resource_id', sa.Text(), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('sync_requested_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['org_id', 'integration_id'], ['integrations.org_id', 'integrations.id'], name=op.f('fk_calendar_channels_org_id_integration_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('org_id', 'integration_id', 'channel_id', name=op.f('pk_calendar_channels'))
    )
    for table in ("lanes", "webhook_delivery_log", "processed_webhook_events"):
        # Hot tables change twice an event; the default would let dead rows pile up before it cleans.
        op.execute(f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0)")


def downgrade():
    op.drop_table('calendar_channels')
    op.drop_table('webhook_payloads')
    op.drop_index('ix_messages_unsettled', table_name='messages', postgresql_where=sa.text("status IN ('sending', 'unknown')"))
    op.drop_index('ix_messages_org_created', table_name='messages')
    op.drop_table('messages')
    op.drop_table('integrations')
    op.drop_index('ix_delivery_attempts_delivery', table_name='delivery_attempts')
    op.drop_table('delivery_attempts')
    op.drop_index(op.f('ix_api_keys_org_id'), table_name='api_keys')
    op.drop_table('api_keys')
    op.drop_index('ix_deliveries_waiting', table_name='webhook_delivery_log', postgresql_where=sa.text('waiting_on IS NOT NULL'))
    op.drop_index('ix_deliveries_org', table_name='webhook_delivery_log')
    op.drop_index('ix_deliveries_lane', table_name='webhook_delivery_log', postgresql_where=sa.text("status IN ('received', 'processing', 'retrying')"))
    op.drop_index('ix_deliveries_finished', table_name='webhook_delivery_log', postgresql_where=sa.text('finished_at IS NOT NULL'))
    op.drop_table('webhook_delivery_log')
    op.drop_table('tool_answers')
    op.drop_table('singletons')
    op.drop_table('processed_webhook_events')
    op.drop_table('organizations')
    op.drop_table('opt_outs')
    op.drop_index(op.f('ix_operator_actions_org_id'), table_name='operator_actions')
    op.drop_table('operator_actions')
    op.drop_index('ix_lanes_turn', table_name='lanes')
    op.drop_table('lanes')
    op.drop_index('ix_calls_org_created', table_name='calls')
    op.drop_table('calls')
    op.drop_index('ix_appointments_phone', table_name='appointments')
    op.drop_index('ix_appointments_org_starts', table_name='appointments')
    op.drop_table('appointments')
    op.execute("DROP SEQUENCE lane_tokens")
    op.execute("DROP EXTENSION btree_gist")
