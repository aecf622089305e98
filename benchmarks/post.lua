-- wrk -s post.lua URL -- REQUESTS [PAUSE]: sends each request of the file once, in order, then says what came of it in
-- JSON. With PAUSE (milliseconds, on the average) each connection waits between an answer and its next request.
-- The file holds raw requests, each behind its length (four bytes, big-endian).
local requests, count, sent, pause = {}, 0, 0, 0

function init(args)
  local file = assert(io.open(args[1], 'rb'))
  while true do
    local head = file:read(4)
    if not head then break end
    local a, b, c, d = head:byte(1, 4)
    count = count + 1
    requests[count] = file:read(((a * 256 + b) * 256 + c) * 256 + d)
  end
  file:close()
  pause = tonumber(args[2] or '0')
end

function delay()
  return pause > 0 and math.random(0, 2 * pause) or 0
end

function request()
  sent = sent % count + 1
  return requests[sent]
end

function done(summary, latency, _)
  local failed = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"seconds":%.4f,"refused":%d,"broken":%d,"p50_ms":%.3f,"p95_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests, summary.duration / 1e6, failed.status,
    failed.connect + failed.read + failed.write + failed.timeout,
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000))
end
