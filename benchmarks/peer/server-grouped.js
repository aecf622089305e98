// The peer as it would be with what makes Voicedesk cheap: requests that wait share one insert, and the row is the queue.
// Settings: DATABASE_URL, PORT, SECRET.
import express from 'express'
import pg from 'pg'
import { isSigned } from './signed.js'

const { DATABASE_URL, PORT } = process.env
const MOST = 64
const INSERT = `INSERT INTO events (provider, event_id, payload)
  SELECT 'vapi', id, payload FROM unnest($1::text[], $2::jsonb[]) AS e(id, payload)
  ON CONFLICT (provider, event_id) DO NOTHING`

const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 10 })
const app = express()
app.disable('x-powered-by')
let waiting = []
let busy = false

// What came while the group before was committed is the next group; nobody waits for company.
async function store () {
  busy = true
  while (waiting.length) {
    const group = waiting.splice(0, MOST)
    try {
      await pool.query(INSERT, [group.map(one => one.id), group.map(one => one.payload)])
      for (const one of group) one.res.json({})
    } catch {
      for (const one of group) one.res.status(503).json({ error: 'database' })
    }
  }
  busy = false
}

app.post('/webhooks/vapi', express.raw({ type: 'application/json', limit: '5mb' }), (req, res) => {
  if (!isSigned(req)) return res.status(401).json({ error: 'signature' })
  let message
  try {
    message = JSON.parse(req.body.toString('utf8')).message
  } catch {
    return res.status(400).json({ error: 'json' })
  }
  waiting.push({ id: `${message.type}-${message.call.id}`, payload: JSON.stringify(message), res })
  if (!busy) store()
})

app.get('/health', (_, res) => res.json({ status: 'healthy' }))
app.listen(Number(PORT), '127.0.0.1')
