-- Writes entities of one topic partition into the serving view, each only when it is newer, and the partition's
-- next offset with them. Nothing is written when the view is not the one the caller filled.
--
-- KEYS[1] generation, KEYS[2] offsets (hash), KEYS[3..] one hash per entity
-- ARGV[1] generation the caller fills
-- ARGV[2] field of the partition in the offsets
-- ARGV[3] offset that Redis must have seen at least, '' while the partition is being filled
-- ARGV[4] next offset to store, '' while more of the same read follows
-- ARGV[5] '1' to announce what changed
-- then per entity: epoch, version, channel, message, number of values, field, value, field, value, ...
--
-- Returns {1, written} or {0, 0} when Redis has lost data since the caller last wrote.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {0, 0}
end
local seen = tonumber(redis.call('HGET', KEYS[2], ARGV[2]) or '-1')
if ARGV[3] ~= '' and seen < tonumber(ARGV[3]) then
  return {0, 0}
end

local at, written = 6, 0
for index = 3, #KEYS do
  local epoch, version = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local channel, message, values = ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])
  local held = redis.call('HMGET', KEYS[index], 'epoch', 'version')
  local held_epoch, held_version = tonumber(held[1] or '-1'), tonumber(held[2] or '-1')
  if epoch > held_epoch or (epoch == held_epoch and version > held_version) then
    redis.call('HSET', KEYS[index], unpack(ARGV, at + 5, at + 4 + values))
    written = written + 1
    if ARGV[5] == '1' and channel ~= '' then
      redis.call('PUBLISH', channel, message)
    end
  end
  at = at + 5 + values
end

if ARGV[4] ~= '' and seen < tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
end
return {1, written}
