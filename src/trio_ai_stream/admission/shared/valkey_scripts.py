"""The decisions, as Lua scripts: each is atomic, one round trip, on the server's clock.

Seven keys hold everything; `{prefix}` is their hash tag, so that in a cluster all but
the rate buckets are in one slot, and the buckets spread over all slots:

    {prefix}:processes   sorted set   process id -> when its lease ends (server, ms)
    {prefix}:streams     hash         stream id -> "process client"; its length counts
    {prefix}:of:PROCESS  set          the stream ids of one process, and an empty one
    {prefix}:clients     hash         client id -> how many streams it has
    {prefix}:at:PROCESS  string       where its streams are read (PEER_ADDRESS)
    {prefix}:back        string       for a while after a process has lost Valkey
    {prefix:CLIENT}:rate string       when the client's bucket is full again (us)

The lease belongs to the process, not to the stream, so a heartbeat costs the same for
one stream and for ten thousand. A stream's permit is as good as its process's lease:
whoever comes next after a lease has ended takes that process's streams out, at most
`REAPED` at a time, so that no call runs long. All writes name the stream, so repeating
one changes nothing. Every key expires some leases after the last heartbeat.

A server that is full may evict one of the keys, and a process's own can expire first.
The others would then count streams that nobody takes out, for ever. So when one is
missing, `processes`, `streams` and `clients` are begun anew: no process is known any
more, and each puts its streams in again. The empty id is there to be missed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

REAPED = 500
"""Streams of one dead process that one call takes out: below 1 ms of script time."""


@dataclass(frozen=True)
class LuaScript:
    """One script's text and the digest by which the server knows it (EVALSHA)."""

    name: str
    text: str

    @cached_property
    def sha(self) -> str:
        """The SHA-1 that the protocol wants; not a secret's protection."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


ADMIT = LuaScript(
    "admit",
    """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local window = interval * burst
local full_at = tonumber(redis.call('GET', KEYS[1]) or now)
-- A server's clock may be set back; nobody owes more than a whole bucket.
full_at = math.min(math.max(full_at, now), now + window)
local next_full_at = full_at + interval
local wait = next_full_at - window - now
if wait > 0 then
  return {0, 0, full_at - now, wait}
end
local reset = next_full_at - now
redis.call('SET', KEYS[1], string.format('%.0f', next_full_at),
           'PX', math.ceil(reset / 1000))
return {1, math.floor((window - reset) / interval), reset, 0}
""",
)

# KEYS: processes, streams, clients, of:PROCESS. ARGV: prefix of `of:`, process, lease
# in ms, then the script's own.
_COMMON = f"""
local processes, streams, clients, mine = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local of, process, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function take_out(id, owner)
  local entry = redis.call('HGET', streams, id)
  local by, client = string.match(entry or '', '^(%S+) (.+)$')
  if by == owner then
    redis.call('HDEL', streams, id)
    if redis.call('HINCRBY', clients, client, -1) <= 0 then
      redis.call('HDEL', clients, client)
    end
  end
end

local function put_in(id, client)
  local entry = redis.call('HGET', streams, id)
  local by = string.match(entry or '', '^(%S+)')
  if by and by ~= process then
    -- A client may use one request id on two hosts; both are streams of their own.
    id = id .. '/' .. process
    by = redis.call('HEXISTS', streams, id) == 1 and process
  end
  if not by then
    redis.call('HSET', streams, id, process .. ' ' .. client)
    redis.call('HINCRBY', clients, client, 1)
  end
  redis.call('SADD', mine, id)
  return id
end

-- A process's own key stays longest: while others count its streams, it is needed.
local function keep(key)
  redis.call('SADD', key, '')
  redis.call('PEXPIRE', key, lease * 6)
end

local function renew()
  local known = redis.call('ZADD', processes, now + lease, process) == 0
  for index = 1, 3 do redis.call('PEXPIRE', KEYS[index], lease * 4) end
  keep(mine)
  return known and 1 or 0
end

local function begin_anew()
  for index = 1, 3 do redis.call('PEXPIRE', KEYS[index], -1) end
end

local function check()
  local any = redis.call('HLEN', streams) > 0
  if any ~= (redis.call('HLEN', clients) > 0)
     or any and redis.call('ZCARD', processes) == 0 then
    begin_anew()
  end
end

local function reap()
  local dead = redis.call('ZRANGEBYSCORE', processes, '-inf', now, 'LIMIT', 0, 4)
  for _, owner in ipairs(dead) do
    if owner ~= process then  -- we are late, not dead
      local theirs = of .. owner
      if redis.call('SREM', theirs, '') == 0 then return begin_anew() end
      local ids = redis.call('SPOP', theirs, {REAPED})
      for _, id in ipairs(ids) do take_out(id, owner) end
      if #ids < {REAPED} then
        redis.call('ZREM', processes, owner)
      else
        keep(theirs)
      end
    end
  end
end
"""

# ARGV: how many streams are released, those, then for each that asks to begin: stream,
# client, limit of all (-1: it lives already, whatever the limit), limit of its client.
CHANGE = LuaScript(
    "change",
    _COMMON
    + """
check()
local first = 5 + tonumber(ARGV[4])
for index = 5, first - 1 do
  redis.call('SREM', mine, ARGV[index])
  take_out(ARGV[index], process)
end
reap()
local answers = {}
for index = first, #ARGV, 4 do
  local id, client = ARGV[index], ARGV[index + 1]
  local total, per_client = tonumber(ARGV[index + 2]), tonumber(ARGV[index + 3])
  if total >= 0 and redis.call('HLEN', streams) >= total then
    answers[#answers + 1] = 'server'
  elseif per_client > 0 and
         tonumber(redis.call('HGET', clients, client) or 0) >= per_client then
    answers[#answers + 1] = 'client'
  else
    answers[#answers + 1] = 'granted ' .. put_in(id, client)
  end
end
return {renew(), redis.call('SCARD', mine) - 1, redis.call('ZCARD', processes),
        redis.call('HLEN', streams), unpack(answers)}
""",
)

# KEYS: also at:PROCESS.
LEAVE = LuaScript(
    "leave",
    _COMMON
    + """
redis.call('PEXPIRE', KEYS[5], -1)
return redis.call('ZADD', processes, 'XX', now - 1, process)
""",
)

HELD = LuaScript(
    "held",
    """
local found = {}
for _, id in ipairs(redis.call('SMEMBERS', KEYS[4])) do
  if id ~= '' then found[#found + 1] = id end
end
return found
""",
)

LIVING = LuaScript(
    "living",
    _COMMON + "return redis.call('ZRANGEBYSCORE', processes, '(' .. now, '+inf')",
)

OWNER = LuaScript("owner", "return redis.call('HGET', KEYS[2], ARGV[4])")

# KEYS: at:PROCESS. ARGV: the address, the lease in ms.
ANNOUNCE = LuaScript(
    "announce", "return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])"
)

ADDRESS = LuaScript("address", "return redis.call('GET', KEYS[1])")

# KEYS: back. ARGV: how long others may take to be back as well, in ms.
RETURN = LuaScript("return", "return redis.call('SET', KEYS[1], 1, 'PX', ARGV[1])")
RETURNING = LuaScript("returning", "return redis.call('GET', KEYS[1])")


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of the keys of one deployment, for one process."""

    prefix: str
    process: str

    def rate(self, client_id: str) -> str:
        """Return the key of one client's bucket; its hash tag is the client."""
        return f"{{{self.prefix}:{client_id}}}:rate"

    @property
    def of(self) -> str:
        """What the key of a process's streams begins with."""
        return f"{{{self.prefix}}}:of:"

    def at(self, process: str) -> str:
        """Return the key of where a process's streams are read."""
        return f"{{{self.prefix}}}:at:{process}"

    @property
    def back(self) -> str:
        """The key that says that processes return after an outage."""
        return f"{{{self.prefix}}}:back"

    @property
    def leaving(self) -> list[str]:
        """The keys of `LEAVE`."""
        return [*self.permits, self.at(self.process)]

    @property
    def permits(self) -> list[str]:
        """The keys that the permit scripts take, in their order."""
        base = f"{{{self.prefix}}}"
        return [
            f"{base}:processes",
            f"{base}:streams",
            f"{base}:clients",
            f"{self.of}{self.process}",
        ]

    def channel(self, process: str | None = None) -> str:
        """Return the channel of one process, or the one that all listen to."""
        return f"{self.prefix}:bus:{process or '*all'}"
