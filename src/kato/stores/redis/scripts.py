"""The Lua scripts of the sessions, each one atomic.

Every session is known by its id in these keys below the prefix `kato:session:`

* `{id}`: a string, the record of `kato.stores.redis.record`, gone by itself an hour after the session's expiry;
* `_active_index`: sorted set, score = expiry, of all sessions that were not swept; `node:{node}` and
  `user:{user}` (`_nobody` for sessions without a user) likewise for theirs;
* `_ids` and `node-ids:{node}`: sorted sets with equal scores, whose order is that of the ids;
* `_owners`: hash of node and user, so that the sweep can clean up after a record that is gone;
* `_tombstones`: sorted set, score = end of the tombstone.
"""

from __future__ import annotations

from typing import Final

from kato.stores.redis.script import Script

_COMMON: Final = """
local function key_of(prefix, id)
  local name = string.gsub(string.gsub(id, '%%', '%%25'), ':', '%%3A')
  if string.sub(name, 1, 1) == '_' then name = '%5F' .. string.sub(name, 2) end
  return prefix .. name
end
local function disown(prefix, id)
  local owner = redis.call('HGET', prefix .. '_owners', id)
  if not owner then return end
  local length = struct.unpack('>I4', owner)
  local node, user = string.sub(owner, 5, 4 + length), string.sub(owner, 5 + length)
  redis.call('ZREM', prefix .. 'node:' .. node, id)
  redis.call('ZREM', prefix .. 'node-ids:' .. node, id)
  redis.call('ZREM', prefix .. user, id)
  redis.call('HDEL', prefix .. '_owners', id)
end
local function forget(prefix, id)
  disown(prefix, id)
  redis.call('ZREM', prefix .. '_active_index', id)
  redis.call('ZREM', prefix .. '_ids', id)
end
"""

LOAD: Final = Script("""
-- KEYS: record. ARGV: revision and creation that the caller holds.
local head = redis.call('GETRANGE', KEYS[1], 0, 47)
if string.sub(head, 1, 16) == ARGV[1] then return string.sub(head, 41, 48) end
return redis.call('GET', KEYS[1])
""")
"""The stored expiry (8 bytes) when the caller's state is current, else the record."""

SAVE: Final = Script(
    _COMMON
    + """
-- KEYS: record, active index, node's, user's. ARGV: revision and creation to find, record, lifetime, expiry,
-- id, prefix, owner
local head = redis.call('GETRANGE', KEYS[1], 0, 47)
if head == '' then return 0 end
if string.sub(head, 1, 16) ~= ARGV[1] then
  if string.sub(head, 25, 40) == string.sub(ARGV[2], 25, 40) then return 1 end
  return redis.call('GET', KEYS[1])
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if string.sub(head, 17, 24) ~= string.sub(ARGV[2], 17, 24) then
  disown(ARGV[6], ARGV[5])
  local length = struct.unpack('>I4', ARGV[7])
  redis.call('HSET', ARGV[6] .. '_owners', ARGV[5], ARGV[7])
  redis.call('ZADD', ARGV[6] .. 'node-ids:' .. string.sub(ARGV[7], 5, 4 + length), 0, ARGV[5])
end
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[5])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[5])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[5])
return 1
"""
)
"""1 when stored (also by an earlier attempt of the same save), 0 when the session is gone, else the record."""

CREATE: Final = Script(
    _COMMON
    + """
-- KEYS: record, active index, node's, user's, node's ids. ARGV: now, record, lifetime, expiry, id, prefix, owner,
-- limit, limit per user
local head = redis.call('GETRANGE', KEYS[1], 0, 47)
if head ~= '' then
  if string.sub(head, 25, 40) == string.sub(ARGV[2], 25, 40) then return {1} end
  return {0}
end
local after = '(' .. ARGV[1]
for number = 0, 1 do
  local limit, index = tonumber(ARGV[8 + number]), KEYS[2 + 2 * number]
  if limit > 0 then
    local living = redis.call('ZCOUNT', index, after, '+inf')
    if living >= limit then
      return {2 + number, living, redis.call('ZRANGEBYSCORE', index, after, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]}
    end
  end
end
forget(ARGV[6], ARGV[5])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[5])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[5])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[5])
redis.call('ZADD', KEYS[5], 0, ARGV[5])
redis.call('ZADD', ARGV[6] .. '_ids', 0, ARGV[5])
redis.call('HSET', ARGV[6] .. '_owners', ARGV[5], ARGV[7])
redis.call('ZREM', ARGV[6] .. '_tombstones', ARGV[5])
return {1}
"""
)
"""{1} when created, {0} when the id is taken, {2 or 3, living, next expiry} when a limit is reached."""

TOUCH: Final = Script("""
-- KEYS: record, active index, node's, user's. ARGV: revision and creation to find, expiry packed, lifetime, expiry, id
local head = redis.call('GETRANGE', KEYS[1], 0, 47)
if head == '' or string.sub(head, 1, 16) ~= ARGV[1] then return 0 end
if struct.unpack('>d', string.sub(head, 41, 48)) < struct.unpack('>d', ARGV[2]) then
  redis.call('SETRANGE', KEYS[1], 40, ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[5])
  redis.call('ZADD', KEYS[3], ARGV[4], ARGV[5])
  redis.call('ZADD', KEYS[4], ARGV[4], ARGV[5])
end
return 1
""")
"""1 when the session now lives at least as long as asked, 0 when it changed or is gone."""

DELETE: Final = Script(
    _COMMON
    + """
-- KEYS: record. ARGV: id, prefix
forget(ARGV[2], ARGV[1])
return redis.call('DEL', KEYS[1])
"""
)
"""1 when there was a session, else 0."""

EXPIRE: Final = Script(
    _COMMON
    + """
-- KEYS: active index, tombstones. ARGV: now, end of the tombstones, their lifetime, how many at most, prefix
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[4])
for _, id in ipairs(gone) do
  forget(ARGV[5], id)
  redis.call('DEL', key_of(ARGV[5], id))
  redis.call('ZADD', KEYS[2], ARGV[2], id)
end
if #gone > 0 then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
return gone
"""
)
"""The ids that were buried by this call."""

PAGE: Final = Script(
    _COMMON
    + """
-- KEYS: ids, active index. ARGV: first id as a bound, how many to find, now or '-inf', how many to look at, prefix
local ids = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, ARGV[4])
local found, wanted, looked = {}, tonumber(ARGV[2]), ''
for _, id in ipairs(ids) do
  looked = id
  if ARGV[3] == '-inf' or (tonumber(redis.call('ZSCORE', KEYS[2], id) or nil) or 0) > tonumber(ARGV[3]) then
    local record = redis.call('GET', key_of(ARGV[5], id))
    if record then
      found[#found + 1] = record
      if #found == wanted then break end
    end
  end
end
return {looked, #ids, found}
"""
)
"""The last id that was looked at, how many ids there were to look at, and the records that were found."""
