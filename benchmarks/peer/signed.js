// Whether a request is Vapi's: HMAC over the raw body and its date. Settings: SECRET.
import crypto from 'node:crypto'

const { SECRET } = process.env
const OLDEST_SECONDS = 300

export function isSigned (req) {
  const at = req.get('x-timestamp') || ''
  if (!(Math.abs(Date.now() / 1000 - Number(at)) <= OLDEST_SECONDS)) return false
  const given = Buffer.from(req.get('x-signature') || '', 'hex')
  const expected = crypto.createHmac('sha256', SECRET).update(at + '.').update(req.body).digest()
  return given.length === expected.length && crypto.timingSafeEqual(given, expected)
}
