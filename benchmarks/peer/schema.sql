-- The peer's tables: one row an event, unique by provider and event, and a log of what was done.
CREATE TABLE IF NOT EXISTS events (
  id bigserial PRIMARY KEY,
  provider text NOT NULL,
  event_id text NOT NULL,
  payload jsonb NOT NULL,
  status text NOT NULL DEFAULT 'received',
  received_at timestamptz NOT NULL DEFAULT now(),
  processed_at timestamptz,
  UNIQUE (provider, event_id)
);
CREATE INDEX IF NOT EXISTS events_waiting ON events (id) WHERE status = 'received';  -- for the grouped worker
CREATE TABLE IF NOT EXISTS event_log (
  id bigserial PRIMARY KEY,
  event_row bigint NOT NULL,
  outcome text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);
