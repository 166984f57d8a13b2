-- Sends more requests than a gateway can serve. The argument is the mode:
--   guess   each request is for a different slug that does not exist
--   spoof   each has another IPv6 network in X-Forwarded-For, as from a trusted proxy
--   one     all have the same network

local threads = {}
shed, silent, limited = 0, 0, 0

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  local mode, path, random = args[1], wrk.path, math.random
  math.randomseed(os.time() * 16 + number)

  function request()
    if mode == "guess" then
      return wrk.format("GET", string.format("/f%07x%07x", random(0, 268435455), random(0, 268435455)))
    end
    local network = "2001:db8:0:1"
    if mode == "spoof" then
      network = string.format("2001:%x:%x:%x", random(0, 65535), random(0, 65535), random(0, 65535))
    end
    return wrk.format("GET", path, { ["X-Forwarded-For"] = network .. "::1" })
  end

  function response(status, headers)
    if status == 503 then
      shed = shed + 1
      if not headers["retry-after"] then silent = silent + 1 end
    elseif status == 429 then
      limited = limited + 1
    end
  end
end

function done(summary)
  local sums = { shed = 0, silent = 0, limited = 0 }
  for _, thread in ipairs(threads) do
    for name, sum in pairs(sums) do sums[name] = sum + thread:get(name) end
  end
  io.write(string.format('{"requests":%d,"shed":%d,"silent":%d,"limited":%d}\n',
    summary.requests, sums.shed, sums.silent, sums.limited))
end
