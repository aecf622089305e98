// Takes webhooks: signature over the raw body, one durable row, one BullMQ job, then 200.
// Settings: DATABASE_URL, REDIS_URL, PORT, SECRET.
import { Queue } from 'bullmq'
import express from 'express'
import IORedis from 'ioredis'
import pg from 'pg'
import { isSigned } from './signed.js'

const { DATABASE_URL, REDIS_URL, PORT } = process.env
const INSERT = `INSERT INTO events (provider, event_id, payload) VALUES ('vapi', $1, $2)
  ON CONFLICT (provider, event_id) DO NOTHING RETURNING id`

const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 10 })
const queue = new Queue('events', { connection: new IORedis(REDIS_URL, { maxRetriesPerRequest: null }) })
const app = express()
app.disable('x-powered-by')

app.post('/webhooks/vapi', express.raw({ type: 'application/json', limit: '5mb' }), async (req, res) => {
  if (!isSigned(req)) return res.status(401).json({ error: 'signature' })
  let message
  try {
    message = JSON.parse(req.body.toString('utf8')).message
  } catch {
    return res.status(400).json({ error: 'json' })
  }
  const id = `${message.type}-${message.call.id}`
  const { rows } = await pool.query(INSERT, [id, JSON.stringify(message)])
  if (rows.length) {
    await queue.add('process', { id: rows[0].id },
      { jobId: `vapi-${id}`, attempts: 5, backoff: { type: 'exponential', delay: 1000 }, removeOnComplete: 1000 })
  }
  res.json({})
})

app.get('/health', (_, res) => res.json({ status: 'healthy' }))
app.listen(Number(PORT), '127.0.0.1')
