-- The state: revocations, memberships, entries and counters. A call is one step; what it does is bounded by what it is given.
--
-- The first arguments are what is to be done, the time (empty: that of Redis), and the name that the history of this
-- state gets if it has none. A change is numbered by its writer, so that one that is sent again is done once; it is told
-- to all processes by an entry of the stream of news, whose number is one more than that of the entry before.
local META, NEWS, WRITERS, REVOKED, BUCKETS, ERAS, BEGAN, STANDING = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local MEMBERS, COUNTS, ENTRIES, FACTS, ENDS, OWNED = KEYS[9], KEYS[10], KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local ORDER, COUNTERS, COUNTED = KEYS[15], KEYS[16], KEYS[17]
local call, match, format = redis.call, string.match, string.format

local MOST_NEWS, NEWS_BYTES = 10000, 32 * 1024 * 1024
local MOST_MEMBERS, MOST_OF_A_USER = 1000000, 1000
local MOST_ENTRIES, ENTRY_BYTES, MOST_OF_AN_OWNER, ENTRY_COST = 100000, 64 * 1024 * 1024, 256, 990
local MOST_COUNTERS = 100000
local WRITER_SECONDS = 86400

local function text(number) return format('%.0f', number) end

local what, now = ARGV[1], tonumber(ARGV[2])
if not now then
  local time = call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local meta = call('HMGET', META, 'epoch', 'news', 'newsbytes', 'number', 'entrybytes', 'put')
local epoch = meta[1]
if not epoch then
  epoch = ARGV[3]
  call('HSET', META, 'epoch', epoch, 'format', '1')
end
local news, newsbytes = tonumber(meta[2] or 0), tonumber(meta[3] or 0)

-- ---- what is only read, and what is not told ----

if what == 'news' then return {epoch, text(news)} end

if what == 'begin' then  -- which processes have not written for long is forgotten
  for _, writer in ipairs(call('HKEYS', WRITERS)) do
    if tonumber(match(call('HGET', WRITERS, writer), ' (%S+)$')) < now - WRITER_SECONDS then call('HDEL', WRITERS, writer) end
  end
  return {epoch, text(news)}
end

local function facts_of(key)  -- expires, size, number, owner
  local facts = call('HGET', FACTS, key)
  if not facts then return nil end
  return match(facts, '^(%S+) (%d+) (%d+) (.*)$')
end
local function owned(owner, number, key) return #owner .. ':' .. owner .. format('%016.0f', number) .. key end
local entrybytes = tonumber(meta[5] or 0)
local function remove(key)
  local _, size, number, owner = facts_of(key)
  call('HDEL', ENTRIES, key)
  call('HDEL', FACTS, key)
  call('ZREM', ENDS, key)
  call('ZREM', OWNED, owned(owner, tonumber(number), key))
  call('ZREM', ORDER, key)
  entrybytes = entrybytes - tonumber(size)
end

if what == 'get' or what == 'take' then
  local key = ARGV[4]
  local expires = facts_of(key)
  if not expires or tonumber(expires) <= now then return {epoch, false} end
  local value = call('HGET', ENTRIES, key)
  if what == 'take' then
    remove(key)
    call('HSET', META, 'entrybytes', text(entrybytes))
  end
  return {epoch, value}
end

if what == 'put' then
  local key, value, expires, owner = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
  if call('HEXISTS', FACTS, key) == 1 then remove(key) end
  local number, size = tonumber(meta[6] or 0) + 1, #key + #value + #owner + ENTRY_COST
  call('HSET', ENTRIES, key, value)
  call('HSET', FACTS, key, expires .. ' ' .. text(size) .. ' ' .. text(number) .. ' ' .. owner)
  call('ZADD', ENDS, expires, key)
  call('ZADD', OWNED, 0, owned(owner, number, key))
  call('ZADD', ORDER, number, key)
  entrybytes = entrybytes + size
  for _, each in ipairs(call('ZRANGEBYSCORE', ENDS, '-inf', now, 'LIMIT', 0, 100)) do remove(each) end
  local low = '[' .. #owner .. ':' .. owner
  local high = '(' .. #owner .. ':' .. owner .. ':'  -- behind all digits
  local excess = call('ZLEXCOUNT', OWNED, low, high) - MOST_OF_AN_OWNER
  if excess > 0 then
    for _, each in ipairs(call('ZRANGEBYLEX', OWNED, low, high, 'LIMIT', 0, excess)) do
      remove(string.sub(each, #low + 16))  -- behind the number; the bracket is one more
    end
  end
  while call('HLEN', FACTS) > MOST_ENTRIES or entrybytes > ENTRY_BYTES do
    remove(call('ZRANGE', ORDER, 0, 0)[1])
  end
  call('HSET', META, 'put', text(number), 'entrybytes', text(entrybytes))
  return {epoch}
end

if what == 'count' then
  local key, window = ARGV[4], tonumber(ARGV[5])
  local known = call('HGET', COUNTERS, key)
  local number = 0
  if known then
    local began, before, its = match(known, '^(%S+) (%d+)')
    began = tonumber(began)
    if began <= now and now < began + window then number = tonumber(before) end
  end
  if number == 0 then
    call('ZADD', COUNTED, now, key)
    call('HSET', COUNTERS, key, format('%.6f', now) .. ' 1 ' .. ARGV[5])
  else
    call('HSET', COUNTERS, key, match(known, '^%S+') .. ' ' .. text(number + 1) .. ' ' .. ARGV[5])
  end
  local oldest = call('ZRANGE', COUNTED, 0, 1)
  for _, each in ipairs(oldest) do  -- those that have passed, a few at a time
    local began, _, its = match(call('HGET', COUNTERS, each), '^(%S+) (%d+) (%S+)$')
    if each ~= key and (now >= tonumber(began) + tonumber(its) or call('HLEN', COUNTERS) > MOST_COUNTERS) then
      call('HDEL', COUNTERS, each)
      call('ZREM', COUNTED, each)
    end
  end
  return {epoch, number + 1}
end

-- ---- changes ----

local writer, turn, FIRST = ARGV[4], tonumber(ARGV[5]), 6
local last = call('HGET', WRITERS, writer)
local again = last and tonumber(match(last, '^%d+')) >= turn
call('HSET', WRITERS, writer, (again and match(last, '^%d+') or text(turn)) .. ' ' .. format('%.3f', now))

local function tell(kind, facts)
  local line = cjson.encode(facts)
  news, newsbytes = news + 1, newsbytes + #line + 100
  call('XADD', NEWS, text(news) .. '-0', 'k', kind, 'f', line)
  local left = call('XLEN', NEWS)
  while left > 1 and (left > MOST_NEWS or newsbytes > NEWS_BYTES) do
    local oldest = call('XRANGE', NEWS, '-', '+', 'COUNT', 1)[1]
    call('XDEL', NEWS, oldest[1])
    left, newsbytes = left - 1, newsbytes - #oldest[2][4] - 100
  end
  call('HSET', META, 'news', text(news), 'newsbytes', text(newsbytes))
end

if what == 'revoke' then  -- digest, at, until, kind, id (as JSON); how many digests are gone, these; then buckets, each with its time
  local digest, at, ends = ARGV[FIRST], ARGV[FIRST + 1], ARGV[FIRST + 2]
  local known = call('HGET', REVOKED, digest)
  local kept_at, kept_until = at, ends
  if known then
    local its_at, its_until = match(known, '^(%S+) (%S+)')
    if tonumber(its_at) > tonumber(at) then kept_at = its_at end
    if its_until == '-' or kept_until == '-' then
      kept_until = '-'
    elseif tonumber(its_until) > tonumber(kept_until) then
      kept_until = its_until
    end
  end
  if not again then
    tell('revoked', {digest, ARGV[FIRST + 3], ARGV[FIRST + 4], at, ends})
    call('HSET', REVOKED, digest, kept_at .. ' ' .. kept_until .. ' ' .. text(news) .. ' ' .. ARGV[FIRST + 3] .. ' ' .. ARGV[FIRST + 4])
    local gone = tonumber(ARGV[FIRST + 5])
    for place = FIRST + 6, FIRST + 5 + gone do call('HDEL', REVOKED, ARGV[place]) end
    for place = FIRST + 6 + gone, #ARGV, 2 do
      local before = call('HGET', BUCKETS, ARGV[place])
      if not before or tonumber(before) < tonumber(ARGV[place + 1]) then call('HSET', BUCKETS, ARGV[place], ARGV[place + 1]) end
    end
  end
  return {epoch, text(news)}
end

local function field(room, user) return #room .. ':' .. room .. user end
local function era_row(number)
  local name, fixed, cap = match(call('HGET', ERAS, number), '^(%S*) (%S+) (%S+)$')
  return {number, name, fixed, cap}
end
local function row(room, user, kept)  -- room, user, era, offset, at, publish, loaded
  local era, offset, at, publish, loaded = match(kept, '^(%d+) (%d+) (%S+) (%d) (%d)$')
  return {room, user, era, offset, at, publish, loaded}
end

if what == 'join' then  -- of each: room, user, epoch, offset, at, publish, loaded
  local new, of_user, seen = 0, {}, {}
  for place = FIRST, #ARGV, 7 do
    local room, user = ARGV[place], ARGV[place + 1]
    local name = field(room, user)
    if not seen[name] and call('HEXISTS', MEMBERS, name) == 0 then
      new, of_user[user] = new + 1, (of_user[user] or 0) + 1
    end
    seen[name] = true
  end
  local full = not again and new > 0 and call('HLEN', MEMBERS) + new > MOST_MEMBERS and {''} or nil
  for user, number in pairs(again and {} or of_user) do
    if tonumber(call('HGET', COUNTS, user) or 0) + number > MOST_OF_A_USER then full = {user} end
  end
  local rows, eras, known = {}, {}, {}
  for place = FIRST, #ARGV, 7 do
    local room, user, its_epoch, offset, at = ARGV[place], ARGV[place + 1], ARGV[place + 2], ARGV[place + 3], ARGV[place + 4]
    local publish, loaded = ARGV[place + 5], ARGV[place + 6]
    local name = field(room, user)
    local kept = call('HGET', MEMBERS, name)
    if not again and not full then
      if kept then
        local begun, _, before = match(kept, '^(%S+ %S+ %S+) (%d) (%d)$')
        if not (loaded == '1' and before == '0') then kept = begun .. ' ' .. publish .. ' ' .. loaded end
      else
        local number = call('HGET', BEGAN, its_epoch)
        if not number then
          number = text(call('HINCRBY', META, 'number', 1))
          call('HSET', BEGAN, its_epoch, number)
          call('HSET', ERAS, number, its_epoch .. ' - -')
        end
        kept = number .. ' ' .. offset .. ' ' .. at .. ' ' .. publish .. ' ' .. loaded
        call('HINCRBY', STANDING, number, 1)
        call('HINCRBY', COUNTS, user, 1)
      end
      call('HSET', MEMBERS, name, kept)
    end
    if kept then
      local each = row(room, user, kept)
      rows[#rows + 1] = each
      if not known[each[3]] then
        known[each[3]] = true
        eras[#eras + 1] = era_row(each[3])
      end
    else
      rows[#rows + 1] = {room, user}
    end
  end
  if not again and not full then tell('joined', {rows, eras}) end
  return {epoch, text(news), cjson.encode({rows, eras}), full and full[1] or false}
end

if what == 'leave' then  -- user, rooms
  local user, rows, rooms, eras, known = ARGV[FIRST], {}, {}, {}, {}
  for place = FIRST + 1, #ARGV do
    local room = ARGV[place]
    local name = field(room, user)
    local kept = call('HGET', MEMBERS, name)
    if kept and not again then
      local each = row(room, user, kept)
      rows[#rows + 1], rooms[#rooms + 1] = each, room
      if not known[each[3]] then
        known[each[3]] = true
        eras[#eras + 1] = era_row(each[3])
      end
      call('HDEL', MEMBERS, name)
      if call('HINCRBY', COUNTS, user, -1) == 0 then call('HDEL', COUNTS, user) end
      if call('HINCRBY', STANDING, each[3], -1) == 0 then
        local its_epoch = match(call('HGET', ERAS, each[3]), '^%S*')
        call('HDEL', STANDING, each[3])
        call('HDEL', ERAS, each[3])
        if call('HGET', BEGAN, its_epoch) == each[3] then call('HDEL', BEGAN, its_epoch) end
      end
    end
  end
  if #rooms > 0 then tell('left', {user, rooms}) end
  return {epoch, text(news), #rows > 0 and cjson.encode({rows, eras}) or '[[],[]]'}
end

if what == 'carry' then  -- the epoch, the present one, its newest offset, the end or `-`
  local eras = {}
  if not again then
    for _, number in ipairs(call('HKEYS', ERAS)) do
      local _, name, fixed, cap = unpack(era_row(number))
      if name == ARGV[FIRST] then
        if ARGV[FIRST + 3] == '-' then
          fixed, cap = ARGV[FIRST + 2], '-'
        elseif cap == '-' or tonumber(ARGV[FIRST + 3]) < tonumber(cap) then
          cap = ARGV[FIRST + 3]
        end
        call('HSET', ERAS, number, ARGV[FIRST + 1] .. ' ' .. fixed .. ' ' .. cap)
        eras[#eras + 1] = era_row(number)
      end
    end
    call('HDEL', BEGAN, ARGV[FIRST])
    if #eras > 0 then tell('carried', eras) end
  end
  return {epoch, text(news)}
end
return redis.error_reply('ERR nothing is called ' .. what)
