-- Records a node's heartbeat and counts the live nodes.
--
-- KEYS[1]  a sorted set: node by the time of its last heartbeat, in milliseconds
-- ARGV     node, milliseconds for which a node without heartbeats is counted
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
-- Written before the clock was set back: counted as of now, so that no node without heartbeats stays.
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  redis.call('ZADD', KEYS[1], now, node)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], 10 * ARGV[2])
return redis.call('ZCARD', KEYS[1])
