-- Counts the processes that share the limits: each says every second that it lives.
--
-- KEYS[1]  a sorted set: node by the time it last spoke, in milliseconds
-- ARGV     node, how long a silent one is counted in milliseconds
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], 10 * ARGV[2])
return redis.call('ZCARD', KEYS[1])
