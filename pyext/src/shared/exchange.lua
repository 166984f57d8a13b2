-- One exchange between a node and the state of one key that all nodes share.
--
-- With one key it answers any request. With several, each of another key, it decides those that `decide_shortly` can.
--
-- KEYS[1]  the state of the key, a MessagePack array:
--          {1, generation, sequence, time of the last write, states, leases, sequence of the last refund,
--           length of the prefix, identity of the rates, identity of those that they replaced}
--          a state of a rate is {1, us, fraction, us of a token, fraction} (token bucket)
--          or {2, window, width, bucket, count, ...}
--          a lease is five numbers of `leases`: node, expiry, tokens, last request, first debit
-- ARGV[1]  the request, a MessagePack array, see below
-- KEYS[n]  of several: the state of another key
-- ARGV[n + 1]  of several: what the request for the n-th key has of its own, a MessagePack array:
--          {units, generation, sequence, us}; the last three are of the state seen, and missing if there is none
--
-- Times are microseconds; those of a token bucket have a fraction in 2^-20. Every number stays below
-- 2^53, so that Lua's doubles hold it exactly. Rounding is towards fewer admissions.

local max, min, floor, ceil = math.max, math.min, math.floor, math.ceil
local FRACTION = 1048576
local GCRA, NEVER = 1, -2
-- A key without writes for this long may change to other rates: the processes with the earlier ones have gone.
local QUIET = 3000000

local request = cmsgpack.unpack(ARGV[1])
local now, node, number, ttl, most_outstanding = request[1], request[2], request[3], request[4], request[5]
local sender, is_reset = request[6], request[7] == 1
local starts_empty, prefix, rates_of_sender = sender[1] == 1, sender[2], sender[3]
local want, held, back, paid, owed = request[8], request[9], request[10], request[11], request[12]
local costs, seen, rates = request[13], request[14], request[15]

if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- --- the short way: a call takes units of one token bucket of which nothing is on lease. It decides as the rest of
-- --- this script does, and returns false for all that is left to that.

local function decide_shortly(key, raw, cost, seen_generation, seen_sequence, seen_us)
  local rate = rates[1]
  local token_us, token_fraction, most_us, most_fraction = rate[3], rate[4], now + rate[5], rate[6]
  local stored, state
  -- The bucket of a state seen before now has been refilled: to restore it would change nothing.
  local has_debt_seen = seen_us and seen_us >= now
  if cost > rate[2] then return false end
  if raw then
    local readable
    readable, stored = pcall(cmsgpack.unpack, raw)
    if not readable or type(stored) ~= 'table' or stored[1] ~= 1 or stored[9] ~= rates_of_sender or stored[8] ~= prefix
      or stored[4] > now or #stored[6] > 0 then return false end
    if stored[2] == seen_generation then
      if stored[3] < seen_sequence then return false end
    elseif has_debt_seen then
      return false
    end
    state = stored[5][1]
    if state[1] ~= GCRA or state[4] ~= token_us or state[5] ~= token_fraction or state[2] >= now + 2 * rate[7] then
      return false
    end
  elseif starts_empty or has_debt_seen then
    return false
  else
    state = {GCRA, 0, 0, token_us, token_fraction}
    stored = {1, now, 0, now, {state}, {}, 0, prefix, rates_of_sender, 0}
  end

  local us, fraction = state[2], state[3]
  if us < now then us, fraction = now, 0 end
  local parts = fraction + cost * token_fraction
  local next_us, next_fraction = us + cost * token_us + floor(parts / FRACTION), parts % FRACTION
  local verdict = next_us - most_us + ceil((next_fraction - most_fraction) / FRACTION)
  if verdict <= 0 then
    verdict, us, fraction = -1, next_us, next_fraction
    state[2], state[3], stored[3], stored[4] = us, fraction, stored[3] + 1, now
  end
  local reset = us - now + (fraction > 0 and 1 or 0)
  if verdict == -1 then
    redis.call('SET', key, cmsgpack.pack(stored), 'PX', ceil(reset / 1000) + 1000)
  end

  local left_us, left_fraction, left = most_us - us, most_fraction - fraction, 0
  if left_fraction < 0 then left_us, left_fraction = left_us - 1, left_fraction + FRACTION end
  if left_us >= 0 then
    -- The quotient of doubles can be one off; the comparison below is exact.
    left = min(rate[2], floor((left_us + left_fraction / FRACTION) / (token_us + token_fraction / FRACTION)) + 1)
    while left > 0 do
      local taken = left * token_fraction
      local taken_us = left * token_us + floor(taken / FRACTION)
      if taken_us < left_us or taken_us == left_us and taken % FRACTION <= left_fraction then break end
      left = left - 1
    end
  end
  local one = 0
  if left == 0 then one = us + token_us - most_us + ceil((fraction + token_fraction - most_fraction) / FRACTION) end
  return {1, 0, left, one, reset, 0, stored[2], stored[3], 0, 1, verdict, us, fraction, now}
end

if #KEYS > 1 then
  local replies = {}
  for i, key in ipairs(KEYS) do
    local call, raw = cmsgpack.unpack(ARGV[i + 1]), redis.pcall('GET', key)
    replies[i] = type(raw) ~= 'table' and decide_shortly(key, raw, call[1], call[2], call[3], call[4])
  end
  return replies
end

local raw = redis.call('GET', KEYS[1])
if #rates == 1 and rates[1][1] == GCRA and #costs == 1 and type(costs[1]) == 'number' and costs[1] > 0
  and not is_reset and want + held + back + paid + owed == 0 then
  local reply = decide_shortly(KEYS[1], raw, costs[1], seen[1], seen[2], seen[3])
  if reply then return reply end
end

local function refusal(code, why)
  -- Printable, so that it fits into one line of a log.
  local key = string.gsub(string.sub(KEYS[1], 1, 80), '[^ -~]', '?')
  return redis.error_reply(code .. " the key '" .. key .. "' " .. why)
end

-- --- the two algorithms: a rate of the request is
-- --- {1, capacity, us of a token, fraction, capacity us, capacity fraction, burst us}
-- --- or {2, capacity, window, width}

local function times(rate, tokens)
  local fraction = tokens * rate[4]
  return tokens * rate[3] + floor(fraction / FRACTION), fraction % FRACTION
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
  local bucket, last = floor(now / rate[4]), #state
  if last > 3 and state[last - 1] >= bucket then
    state[last] = state[last] + tokens
  else
    state[last + 1], state[last + 2] = bucket, tokens
  end
end

-- Brings a state up to now: drops units that no longer count, and debts beyond the present rate.
local function settle(rate, state)
  if state[1] ~= rate[1] then
    -- Another algorithm: the units spent cannot be translated, so the whole capacity counts as spent.
    state = fresh(rate)
    if rate[1] == GCRA then state[2], state[3] = sum(now, 0, rate[5], rate[6]) else spend(rate, state, rate[2]) end
    return state
  end
  if rate[1] == GCRA then
    if state[4] ~= rate[3] or state[5] ~= rate[4] then
      -- Another rate: the debt is kept as units, not as the time in which they were refilled before.
      local us, fraction = difference(state[2], state[3], now, 0)
      if us >= 0 then
        local units = (us + fraction / FRACTION) / (state[4] + state[5] / FRACTION)
        us, fraction = ceil(units * (rate[3] + rate[4] / FRACTION)) + 1, 0
        if us > rate[5] then us, fraction = rate[5], rate[6] end
        state[2], state[3] = now + us, fraction
      end
      state[4], state[5] = rate[3], rate[4]
    end
    -- Twice the burst is the largest debt, see `payable`.
    if state[2] >= now + 2 * rate[7] then state[2], state[3] = now + 2 * rate[7], 0 end
    return state
  end
  local kept = fresh(rate)
  if state[2] ~= rate[3] or state[3] ~= rate[4] then
    -- Other buckets: all units count from now on.
    spend(rate, kept, used(state))
    return kept
  end
  local oldest, newest = floor((now - rate[3] + 1) / rate[4]), floor(now / rate[4])
  for i = 4, #state, 2 do
    if state[i] >= oldest and state[i + 1] > 0 then
      local last = #kept
      if state[i] > newest and last > 3 and kept[last - 1] == newest then
        kept[last] = kept[last] + state[i + 1]
      else
        kept[last + 1], kept[last + 2] = min(state[i], newest), state[i + 1]
      end
    end
  end
  return kept
end

-- The number of tokens refilled in a time, at most `most`.
local function fitting(rate, us, fraction, most)
  if us < 0 then return 0 end
  -- The quotient of doubles can be one off; the comparison below is exact.
  local tokens = min(most, floor((us + fraction / FRACTION) / (rate[3] + rate[4] / FRACTION)) + 1)
  local cost_us, cost_fraction = times(rate, tokens)
  while tokens > 0 and (cost_us > us or cost_us == us and cost_fraction > fraction) do
    tokens = tokens - 1
    cost_us, cost_fraction = times(rate, tokens)
  end
  return tokens
end

local function room(rate, state)
  if rate[1] ~= GCRA then return max(0, rate[2] - used(state)) end
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

-- Takes back a debit made at `since` or later. A window credits the oldest possible bucket: the units that
-- stay are then younger, and block longer.
local function credit(rate, state, tokens, since)
  if rate[1] == GCRA then
    local us, fraction = difference(state[2], state[3], times(rate, tokens))
    if us < now then us, fraction = min(state[2], now), 0 end
    state[2], state[3] = us, fraction
    return
  end
  local bucket = floor(since / rate[4])
  for i = 4, #state, 2 do
    if state[i] == bucket then state[i + 1] = max(0, state[i + 1] - tokens) end
  end
end

-- Debits `paid`, units admitted in the past without a debit: for their time the bucket has not been refilled.
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

-- The part of `owed`, units spent lately, that can be debited: what is free. The node keeps the rest as its debt, and
-- admits no more without asking until it is debited. A key in debt would let each node start its allowance over.
local function payable(rate, state) return min(owed, room(rate, state)) end

-- --- the state: as stored, or restored from the state that the node has seen

local readable, stored = pcall(cmsgpack.unpack, raw or '')
if not raw then
  stored = nil
else
  -- With this limiter's mark the rest is there, too.
  local is_state = readable and type(stored) == 'table' and stored[1] == 1
    and (stored[9] == rates_of_sender and stored[8] == prefix
      or type(stored[2]) == 'number' and type(stored[3]) == 'number' and type(stored[4]) == 'number'
      and type(stored[5]) == 'table' and type(stored[6]) == 'table')
  if not is_state then return refusal('FOREIGN', 'holds a value that no limiter has written') end
end

-- Two limiters whose keys meet would take units from each other. The same one may change its rates, in one process
-- after the other: each names the rates that its own have replaced.
local owner, replaced, is_taken_over = rates_of_sender, stored and stored[10] or 0, false
if stored and stored[8] and (stored[8] ~= prefix or stored[9] ~= owner) then
  if stored[8] ~= prefix then return refusal('CLASH', 'belongs to a limiter with another prefix') end
  local is_older = false
  for i = 4, #sender do is_older = is_older or sender[i] == stored[9] end
  if stored[10] == owner then
    owner = stored[9]
  elseif is_older then
    replaced = stored[9]
  elseif stored[4] + QUIET > now then
    return refusal('CLASH', 'belongs to a limiter with other rates: each limiter needs a prefix of its own')
  else
    replaced, is_taken_over = 0, true
  end
end

-- The clock was set back, or a server with a slower one has taken over. On the clock of the state, the time is that of
-- its last write, and what has passed since a node saw the state like this: so a refused key waits as long as it was
-- told, although its refusals write nothing. Once something is written, the state moves to the present clock.
local clock, behind, seen_at = now, 0, now
if stored and stored[4] > now then
  if stored[2] == seen[1] and stored[3] == seen[2] then seen_at = min(now, seen[2 * #rates + 3] or now) end
  now = stored[4] + now - seen_at
  behind = now - clock
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

-- A node that has seen a newer state than the stored one proves that writes were lost. The key starts a new
-- generation, so that the other nodes restore the state they have seen, too.
local is_rolled_back = stored and #seen > 0 and stored[2] == seen[1] and stored[3] < seen[2]
if #seen > 0 and not is_reset and (not stored or stored[2] ~= seen[1] or stored[3] < seen[2]) then
  for i, rate in ipairs(rates) do
    local state, first, second = states[i], seen[2 * i + 1], seen[2 * i + 2]
    if rate[1] == GCRA then
      first = min(first, now + rate[7])
      if first > state[2] or first == state[2] and second > state[3] then
        state[2], state[3] = first, second
        changed = changed or first >= now
      end
    elseif second >= floor((now - rate[3] + 1) / rate[4]) and first > used(state) then
      local lost, bucket = first - used(state), min(second, floor(now / rate[4]))
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

-- --- the leases: tokens that nodes may still spend

local kept, mine, others, latest = {}, nil, 0, now
for i = 1, #leases, 5 do
  local expiry = min(leases[i + 1], now + max(ttl, 60000000))
  if leases[i] == node then
    if expiry > now then mine = {expiry, leases[i + 2], leases[i + 3], leases[i + 4]} end
  elseif expiry > now then
    for j = 0, 4 do kept[#kept + 1] = leases[i + j] end
    others, latest = others + leases[i + 2], max(latest, expiry)
  end
end
if mine and number <= mine[3] then return {0} end -- a later request of the same node came first

if back > 0 and mine then
  local tokens = min(back, mine[2] - held)
  if tokens > 0 then
    for i, rate in ipairs(rates) do credit(rate, states[i], tokens, mine[4]) end
    changed = true
  end
end
local debited = owed
if paid + owed > 0 then
  for i, rate in ipairs(rates) do
    spend_past(rate, states[i])
    debited = min(debited, payable(rate, states[i]))
  end
  for i, rate in ipairs(rates) do spend(rate, states[i], debited) end
  changed = changed or paid + debited > 0
end

-- --- the decisions

-- A refund is made once, however often its message arrives: only if none has been made since the node saw the state.
local refunded, is_refund_due = stored and stored[7] or 0, not stored
if stored then is_refund_due = stored[2] == seen[1] and seen[2] >= refunded end
local has_refunded = false

-- -1: allowed, -2: never fits, -3: given back, -4: not given back, the state is another one; else microseconds
-- until it fits
local ALLOWED, REFUNDED, OUTDATED = -1, -3, -4
local TO_REFUND = 1
local verdicts, tightest = {}, 1
for n, call in ipairs(costs) do
  local is_look, cost = type(call) == 'table', call
  if is_look then cost = call[2] end
  if is_look and call[1] == TO_REFUND then
    verdicts[n] = is_refund_due and REFUNDED or OUTDATED
    if is_refund_due then
      for i, rate in ipairs(rates) do
        -- Tokens on lease may still be spent, so they stay debited.
        local state = states[i]
        local units = min(cost, rate[2] - room(rate, state) - others - held)
        if units > 0 and rate[1] == GCRA then
          credit(rate, state, units)
        elseif units > 0 then
          -- The oldest units, so that those that stay block longer.
          for j = 4, #state, 2 do
            local part = min(units, state[j + 1])
            state[j + 1], units = state[j + 1] - part, units - part
          end
        end
      end
      has_refunded = true
    end
  else
    local longest_wait = 0
    for i, rate in ipairs(rates) do
      -- The tokens that the node holds would be given back before a call.
      local this = wait(rate, states[i], cost)
      if is_look and this > 0 then this = wait(rate, states[i], max(0, cost - held)) end
      if longest_wait ~= NEVER and (this == NEVER or this > longest_wait) then longest_wait, tightest = this, i end
    end
    if longest_wait == 0 or cost == 0 then
      verdicts[n] = ALLOWED
      if not is_look and cost > 0 then
        for i, rate in ipairs(rates) do spend(rate, states[i], cost) end
        changed = true
      end
    else
      verdicts[n] = longest_wait
    end
  end
end
changed = changed or has_refunded and stored ~= nil

local left, narrowest = nil, 1
for i, rate in ipairs(rates) do
  local this = room(rate, states[i])
  if not left or this < left then left, narrowest = this, i end
end
local free = max(0, most_outstanding - others - held)
if others > 0 and want > free then free = ceil(free / 2) end -- leave tokens for other nodes
local grant = min(want, left, free)
if grant > 0 then
  for i, rate in ipairs(rates) do spend(rate, states[i], grant) end
  changed = true
end
if held + grant > 0 then
  local since = held > 0 and mine and mine[4] or now
  for _, number_of_lease in ipairs({node, now + ttl, held + grant, number, since}) do kept[#kept + 1] = number_of_lease end
  latest, changed = max(latest, now + ttl), true
elseif mine then
  changed = true
end

-- --- the new state, written only if something has changed

local reset, one = 0, 0
for i, rate in ipairs(rates) do
  reset = max(reset, full_in(rate, states[i]))
  one = max(one, wait(rate, states[i], 1))
end

local generation, sequence = stored and stored[2] or now, stored and stored[3] or 0
if is_rolled_back then generation = max(now, generation + 1) end
if changed then
  sequence = sequence + 1
  if has_refunded then refunded = sequence end
  local lives = max(latest - now, reset)
  if behind > 0 then
    -- To the present clock. Units in a bucket become younger by less than its width: they block longer.
    for i, rate in ipairs(rates) do
      local state = states[i]
      if rate[1] ~= GCRA then
        for j = 4, #state, 2 do state[j] = max(0, state[j] - floor(behind / rate[4])) end
      elseif state[2] < behind then
        state[2], state[3] = 0, 0
      else
        state[2] = state[2] - behind
      end
    end
    for i = 1, #kept, 5 do kept[i + 1], kept[i + 4] = kept[i + 1] - behind, max(0, kept[i + 4] - behind) end
    now, seen_at = clock, clock
    for i, rate in ipairs(rates) do lives = max(lives, full_in(rate, states[i])) end
  end
  local value = cmsgpack.pack({1, generation, sequence, now, states, kept, refunded, prefix, owner, replaced})
  redis.call('SET', KEYS[1], value, 'PX', ceil(lives / 1000) + 1000)
end

if #costs == 0 or verdicts[#costs] < 0 and verdicts[#costs] ~= NEVER then tightest = narrowest end
local known = changed and generation or stored and stored[2] or 0
local reply = {1, grant, left - grant, one, reset, tightest - 1, known, sequence, debited, #costs}
for _, verdict in ipairs(verdicts) do reply[#reply + 1] = verdict end
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
reply[#reply + 1] = is_taken_over and -seen_at or seen_at
return reply
