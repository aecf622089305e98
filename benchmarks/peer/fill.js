// Queues one job for each row that waits, to measure the worker alone. Settings: DATABASE_URL, REDIS_URL.
import { Queue } from 'bullmq'
import IORedis from 'ioredis'
import pg from 'pg'

const AT_ONCE = 1000
const { DATABASE_URL, REDIS_URL } = process.env
const db = new pg.Client({ connectionString: DATABASE_URL })
await db.connect()
const { rows } = await db.query("SELECT id FROM events WHERE status = 'received' ORDER BY id")
await db.end()
const queue = new Queue('events', { connection: new IORedis(REDIS_URL, { maxRetriesPerRequest: null }) })
const options = { attempts: 5, backoff: { type: 'exponential', delay: 1000 }, removeOnComplete: 1000 }
for (let first = 0; first < rows.length; first += AT_ONCE) {
  await queue.addBulk(rows.slice(first, first + AT_ONCE).map(({ id }) =>
    ({ name: 'process', data: { id }, opts: { ...options, jobId: `fill-${id}` } })))
}
process.exit(0)
