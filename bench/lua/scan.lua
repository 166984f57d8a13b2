-- Requests random slugs. Arguments:
--   ADDRESSES  the number of clients in X-Forwarded-For, for a server that trusts this machine
-- Reports the number of responses by status.

local letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
local threads = {}
absent, refused, shed, other = 0, 0, 0, 0

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local addresses = tonumber(args[1])
  math.randomseed(1)

  function request()
    local slug = {}
    for place = 1, 9 do
      local at = math.random(#letters)
      slug[place] = letters:sub(at, at)
    end
    local client = math.random(0, addresses - 1)
    local address = string.format("10.%d.%d.%d", client / 65536, client / 256 % 256, client % 256)
    return wrk.format("GET", "/" .. table.concat(slug), { ["X-Forwarded-For"] = address })
  end
end

function response(status)
  if status == 404 then absent = absent + 1
  elseif status == 429 then refused = refused + 1
  elseif status == 503 then shed = shed + 1
  else other = other + 1 end
end

function done(summary, latency)
  local sums = { absent = 0, refused = 0, shed = 0, other = 0 }
  for name in pairs(sums) do
    for _, thread in ipairs(threads) do sums[name] = sums[name] + thread:get(name) end
  end
  io.write(string.format(
    '{"guesses":%d,"us":%d,"absent":%d,"refused":%d,"shed":%d,"other":%d}\n',
    summary.requests, summary.duration, sums.absent, sums.refused, sums.shed, sums.other))
end
