-- One exchange between a node and the state that all nodes share for one key.
--
-- KEYS[1]  the state of the key, a MessagePack array:
--          {1, generation, sequence, high-water time, rates, leases}
--          a rate is {1, us, fraction, us of a token, fraction} (token bucket)
--          or {2, window, width, bucket, count, ...}
--          a lease is five numbers of `leases`: node, expiry, tokens, last request, first debit
-- ARGV[1]  the request, a MessagePack array, see below
--
-- Times are microseconds; those of a token bucket have a fraction in 2^-20. Every number stays below
-- 2^53, so that Lua's doubles hold it exactly. What must be rounded is rounded towards fewer admissions.

local FRACTION = 1048576
local GCRA, NEVER = 1, -2

local request = cmsgpack.unpack(ARGV[1])
local now, node, number, ttl, most_outstanding = request[1], request[2], request[3], request[4], request[5]
local starts_empty, is_reset = request[6] == 1, request[7] == 1
local want, held, back, paid, owed = request[8], request[9], request[10], request[11], request[12]
local needs, seen, rates = request[13], request[14], request[15]

if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- --- the two algorithms: a rate is {1, capacity, us, fraction, capacity us, capacity fraction, debt us}
-- --- or {2, capacity, window, width, debt}

local function times(rate, tokens)
  local fraction = tokens * rate[4]
  return tokens * rate[3] + math.floor(fraction / FRACTION), fraction % FRACTION
end

local function sum(us, fraction, more_us, more_fraction)
  fraction = fraction + more_fraction
  if fraction >= FRACTION then return us + more_us + 1, fraction - FRACTION end
  return us + more_us, fraction
end

local function difference(us, fraction, less_us, less_fraction)
  fraction = fraction - less_fraction
  if fraction < 0 then return us - less_us - 1, fraction + FRACTION end
  return us - less_us, fraction
end

local function base(state)
  if state[2] < now then return now, 0 end
  return state[2], state[3]
end

local function used(state)
  local total = 0
  for i = 5, #state, 2 do total = total + state[i] end
  return total
end

local function fresh(rate)
  if rate[1] == GCRA then return {GCRA, 0, 0, rate[3], rate[4]} end
  return {2, rate[3], rate[4]}
end

local function spend(rate, state, tokens)
  if tokens == 0 then return end
  if rate[1] == GCRA then
    local us, fraction = base(state)
    state[2], state[3] = sum(us, fraction, times(rate, tokens))
    return
  end
  local bucket, last = math.floor(now / rate[4]), #state
  if last > 3 and state[last - 1] >= bucket then
    state[last] = state[last] + tokens
  else
    state[last + 1], state[last + 2] = bucket, tokens
  end
end

-- Brings a state up to now: forgets what no longer counts, and what another configuration could not owe.
local function settle(rate, state)
  if state[1] ~= rate[1] then
    -- Another algorithm. What was spent cannot be translated, so everything counts as spent.
    state = fresh(rate)
    if rate[1] == GCRA then state[2], state[3] = sum(now, 0, rate[5], rate[6]) else spend(rate, state, rate[2]) end
    return state
  end
  if rate[1] == GCRA then
    if state[4] ~= rate[3] or state[5] ~= rate[4] then
      -- Another rate. What is owed is a number of units, not the time in which they flowed in before.
      local us, fraction = difference(state[2], state[3], now, 0)
      if us >= 0 then
        local units = (us + fraction / FRACTION) / (state[4] + state[5] / FRACTION)
        us, fraction = math.ceil(units * (rate[3] + rate[4] / FRACTION)) + 1, 0
        if us > rate[5] then us, fraction = rate[5], rate[6] end
        state[2], state[3] = now + us, fraction
      end
      state[4], state[5] = rate[3], rate[4]
    end
    -- Twice the burst is the most that is ever debited, see `payable`.
    if state[2] >= now + 2 * rate[7] then state[2], state[3] = now + 2 * rate[7], 0 end
    return state
  end
  local kept = fresh(rate)
  if state[2] ~= rate[3] or state[3] ~= rate[4] then
    -- Other buckets: everything counts from now on.
    spend(rate, kept, used(state))
    return kept
  end
  local oldest, newest = math.floor((now - rate[3] + 1) / rate[4]), math.floor(now / rate[4])
  for i = 4, #state, 2 do
    if state[i] >= oldest and state[i + 1] > 0 then
      local last = #kept
      if state[i] > newest and last > 3 and kept[last - 1] == newest then
        kept[last] = kept[last] + state[i + 1]
      else
        kept[last + 1], kept[last + 2] = math.min(state[i], newest), state[i + 1]
      end
    end
  end
  return kept
end

-- How many tokens fit into a time, at most `most`.
local function fitting(rate, us, fraction, most)
  if us < 0 then return 0 end
  -- The quotient of doubles can be one off; the comparison below is exact.
  local tokens = math.min(most, math.floor((us + fraction / FRACTION) / (rate[3] + rate[4] / FRACTION)) + 1)
  local cost_us, cost_fraction = times(rate, tokens)
  while tokens > 0 and (cost_us > us or cost_us == us and cost_fraction > fraction) do
    tokens = tokens - 1
    cost_us, cost_fraction = times(rate, tokens)
  end
  return tokens
end

local function room(rate, state)
  if rate[1] ~= GCRA then return math.max(0, rate[2] - used(state)) end
  local us, fraction = sum(now, 0, rate[5], rate[6])
  us, fraction = difference(us, fraction, base(state))
  return fitting(rate, us, fraction, rate[2])
end

-- Microseconds until `tokens` fit.
local function wait(rate, state, tokens)
  if tokens > rate[2] then return NEVER end
  if rate[1] == GCRA then
    local us, fraction = base(state)
    us, fraction = sum(us, fraction, times(rate, tokens))
    us, fraction = difference(us, fraction, sum(now, 0, rate[5], rate[6]))
    if us < 0 then return 0 end
    return us + (fraction > 0 and 1 or 0)
  end
  local excess = used(state) + tokens - rate[2]
  if excess <= 0 then return 0 end
  for i = 4, #state, 2 do
    excess = excess - state[i + 1]
    if excess <= 0 then return (state[i] + 1) * rate[4] + rate[3] - 1 - now end
  end
  return rate[3]
end

local function full_in(rate, state)
  if rate[1] == GCRA then
    local us, fraction = difference(state[2], state[3], now, 0)
    return us < 0 and 0 or us + (fraction > 0 and 1 or 0)
  end
  if #state < 5 then return 0 end
  return (state[#state - 1] + 1) * rate[4] + rate[3] - 1 - now
end

-- Takes back a debit made at `since` or later. A window credits the oldest bucket it can have been made
-- in: one too old only blocks longer.
local function credit(rate, state, tokens, since)
  if rate[1] == GCRA then
    local us, fraction = difference(state[2], state[3], times(rate, tokens))
    if us < now then us, fraction = math.min(state[2], now), 0 end
    state[2], state[3] = us, fraction
    return
  end
  local bucket = math.floor(since / rate[4])
  for i = 4, #state, 2 do
    if state[i] == bucket then state[i + 1] = math.max(0, state[i + 1] - tokens) end
  end
end

-- Debits `paid`, admitted without asking: it took what would have flowed in here, and for that long the bucket
-- has not been filling.
local function spend_past(rate, state)
  if paid == 0 or rate[1] ~= GCRA then return spend(rate, state, paid) end
  local most = now + 2 * rate[7]
  if paid * rate[3] <= most - state[2] then
    state[2], state[3] = sum(state[2], state[3], times(rate, paid))
  else
    state[2], state[3] = most, 0
  end
  if state[2] >= most then state[2], state[3] = most, 0 end
end

-- How much of `owed`, which was spent just now, can be debited: a bucket owes twice the burst at most. The
-- rest stays owed by the node.
local function payable(rate, state)
  if rate[1] ~= GCRA then return owed end
  local us, fraction = difference(now + 2 * rate[7], 0, base(state))
  return fitting(rate, us, fraction, math.min(owed, 2 * rate[2]))
end

-- --- the state, as it is or as it must have been

local raw = redis.call('GET', KEYS[1])
local readable, stored = pcall(cmsgpack.unpack, raw or '')
if not raw or not readable or type(stored) ~= 'table' or stored[1] ~= 1 then stored = nil end

local longest = 0
for _, rate in ipairs(rates) do longest = math.max(longest, rate[1] == GCRA and rate[7] or rate[3]) end

if stored and stored[4] > now and stored[4] - now <= math.max(60000000, 2 * longest) then
  now = stored[4] -- Redis's clock was set back a little: it stands still until it has caught up
end

local changed, states, leases = is_reset, {}, stored and stored[6] or {}
for i, rate in ipairs(rates) do
  local state = not is_reset and stored and stored[5][i]
  if state then
    states[i] = settle(rate, state)
  else
    states[i] = fresh(rate)
    if starts_empty and not stored and not is_reset and #seen == 0 then spend(rate, states[i], rate[2]) changed = true end
  end
end

-- Whoever has seen a newer state than the one that is stored knows that some of it was lost. It starts a
-- new generation, so that everybody else is heard about it, too.
local is_rolled_back = stored and #seen > 0 and stored[2] == seen[1] and stored[3] < seen[2]
if #seen > 0 and not is_reset and (not stored or stored[2] ~= seen[1] or stored[3] < seen[2]) then
  for i, rate in ipairs(rates) do
    local state, first, second = states[i], seen[2 * i + 1], seen[2 * i + 2]
    if rate[1] == GCRA then
      first = math.min(first, now + rate[7])
      if first > state[2] or first == state[2] and second > state[3] then
        state[2], state[3] = first, second
        changed = changed or first >= now
      end
    elseif second >= math.floor((now - rate[3] + 1) / rate[4]) and first > used(state) then
      local lost, bucket = first - used(state), math.min(second, math.floor(now / rate[4]))
      local kept = fresh(rate)
      for j = 4, #state, 2 do
        if lost > 0 and state[j] >= bucket then
          if state[j] > bucket then kept[#kept + 1] = bucket kept[#kept + 1] = lost end
          kept[#kept + 1] = state[j]
          kept[#kept + 1] = state[j + 1] + (state[j] == bucket and lost or 0)
          lost = 0
        else
          kept[#kept + 1] = state[j]
          kept[#kept + 1] = state[j + 1]
        end
      end
      if lost > 0 then kept[#kept + 1] = bucket kept[#kept + 1] = lost end
      states[i], changed = kept, true
    end
  end
end

-- --- the ledger: what may still be spent without asking

local kept, mine, others, latest = {}, nil, 0, now
for i = 1, #leases, 5 do
  local expiry = math.min(leases[i + 1], now + math.max(ttl, 60000000))
  if leases[i] == node then
    if expiry > now then mine = {expiry, leases[i + 2], leases[i + 3], leases[i + 4]} end
  elseif expiry > now then
    for j = 0, 4 do kept[#kept + 1] = leases[i + j] end
    others, latest = others + leases[i + 2], math.max(latest, expiry)
  end
end
if mine and number <= mine[3] then return {0} end -- overtaken by a later request of the same node

if back > 0 and mine then
  local tokens = math.min(back, mine[2] - held)
  if tokens > 0 then
    for i, rate in ipairs(rates) do credit(rate, states[i], tokens, mine[4]) end
    changed = true
  end
end
local debited = owed
if paid + owed > 0 then
  for i, rate in ipairs(rates) do
    spend_past(rate, states[i])
    debited = math.min(debited, payable(rate, states[i]))
  end
  for i, rate in ipairs(rates) do spend(rate, states[i], debited) end
  changed = changed or paid + debited > 0
end

-- --- the decisions

local answers, tightest = {}, 1
for n, need in ipairs(needs) do
  local longest_wait = 0
  for i, rate in ipairs(rates) do
    local this = wait(rate, states[i], need)
    if longest_wait ~= NEVER and (this == NEVER or this > longest_wait) then longest_wait, tightest = this, i end
  end
  if longest_wait == 0 then
    for i, rate in ipairs(rates) do spend(rate, states[i], need) end
    answers[n], changed = -1, true
  else
    answers[n] = longest_wait
  end
end

local function least_room()
  local least, which = nil, 1
  for i, rate in ipairs(rates) do
    local this = room(rate, states[i])
    if not least or this < least then least, which = this, i end
  end
  return least, which
end

local left, narrowest = least_room()
local free = math.max(0, most_outstanding - others - held)
if others > 0 and want > free then free = math.ceil(free / 2) end -- leave some for the others
local grant = math.min(want, left, free)
if grant > 0 then
  for i, rate in ipairs(rates) do spend(rate, states[i], grant) end
  changed = true
end
if held + grant > 0 then
  local since = held > 0 and mine and mine[4] or now
  for _, number_of_lease in ipairs({node, now + ttl, held + grant, number, since}) do kept[#kept + 1] = number_of_lease end
  latest, changed = math.max(latest, now + ttl), true
elseif mine then
  changed = true
end

-- --- what is kept: nothing is written if nothing was given

local generation, sequence = stored and stored[2] or now, stored and stored[3] or 0
if is_rolled_back then generation = math.max(now, generation + 1) end
if changed then
  sequence = sequence + 1
  local lives = latest - now
  for i, rate in ipairs(rates) do lives = math.max(lives, full_in(rate, states[i])) end
  local value = cmsgpack.pack({1, generation, sequence, now, states, kept})
  redis.call('SET', KEYS[1], value, 'PX', math.ceil(lives / 1000) + 1000)
end

local reset, one = 0, 0
for i, rate in ipairs(rates) do
  reset = math.max(reset, full_in(rate, states[i]))
  one = math.max(one, wait(rate, states[i], 1))
end
if #needs == 0 or answers[#needs] == -1 then tightest = narrowest end
local known = changed and generation or stored and stored[2] or 0
local reply = {1, grant, left - grant, one, reset, tightest - 1, known, sequence, debited, #needs}
for _, answer in ipairs(answers) do reply[#reply + 1] = answer end
for i, rate in ipairs(rates) do
  local state = states[i]
  if rate[1] == GCRA then
    reply[#reply + 1] = state[2]
    reply[#reply + 1] = state[3]
  else
    reply[#reply + 1] = used(state)
    reply[#reply + 1] = #state > 3 and state[#state - 1] or 0
  end
end
return reply
