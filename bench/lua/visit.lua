-- Requests paths from a file and reports figures as JSON. Arguments, all or none:
--   FILE      one path per line, requested in this order
--   START     the number of paths to skip at first
--   STATUS    the expected statuses, separated by commas
--   EVERY     every n-th request creates a link instead; 0 for none
--   TOKEN     the API key for creates
-- Without arguments, wrk repeats the request of its command line, which is fastest.

local threads = {}
listed, wrong = false, 0

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  if not args[1] then return end
  listed = true
  local requests, right, at, every = {}, {}, tonumber(args[2]), tonumber(args[4])
  for path in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", path)
  end
  for status in args[3]:gmatch("%d+") do
    right[tonumber(status)] = true
  end
  local headers = { ["Authorization"] = "Bearer " .. (args[5] or ""), ["Content-Type"] = "application/json" }
  local create = wrk.format("POST", "/api/v1/links", headers, '{"long_url":"https://example.com/written"}')
  local count, sent = #requests, 0

  function request()
    sent = sent + 1
    if every > 0 and sent % every == 0 then return create end
    at = at % count + 1
    return requests[at]
  end

  function response(status)
    if not right[status] then wrong = wrong + 1 end
  end
end

function done(summary, latency)
  local errors, statuses = summary.errors, 0
  for _, thread in ipairs(threads) do
    -- wrk counts statuses other than 2xx and 3xx; with a list of paths, STATUS decides.
    statuses = statuses + (thread:get("listed") and thread:get("wrong") or errors.status)
  end
  io.write(string.format(
    '{"requests":%d,"us":%d,"wrong":%d,"broken":%d,"p50":%d,"p99":%d,"p999":%d}\n',
    summary.requests, summary.duration, statuses,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
