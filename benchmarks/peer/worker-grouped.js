// Processes what waits in the table, a hundred rows in one transaction. Settings: DATABASE_URL.
import pg from 'pg'

const MOST = 100
const PAUSE_MS = 10
const CLAIM = `SELECT id, payload FROM events WHERE status = 'received'
  ORDER BY id LIMIT ${MOST} FOR UPDATE SKIP LOCKED`

const db = new pg.Client({ connectionString: process.env.DATABASE_URL })
let goesOn = true
process.on('SIGTERM', () => { goesOn = false })
await db.connect()
while (goesOn) {
  await db.query('BEGIN')
  const { rows } = await db.query(CLAIM)
  const ids = rows.map(row => row.id)
  if (ids.length) {
    await db.query("UPDATE events SET status = 'processed', processed_at = now() WHERE id = ANY($1)", [ids])
    await db.query("INSERT INTO event_log (event_row, outcome) SELECT unnest($1::bigint[]), 'processed'", [ids])
  }
  await db.query('COMMIT')
  if (!ids.length) await new Promise(resolve => setTimeout(resolve, PAUSE_MS))
}
await db.end()
