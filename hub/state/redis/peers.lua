-- The processes of a hub: their leases, what each of them holds, and the news of that. A call is one step.
--
-- The first arguments are what is to be done, the time (empty: that of Redis), the name that the history gets if it has
-- none, and the process that calls. What a process holds, and its inbox, are under keys that end with its name; so are
-- claims, with theirs.
local META, NEWS, LEASES, HELD, INBOX, CLAIM = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local call, format = redis.call, string.format

local MOST_NEWS, NEWS_BYTES, MOST_WAITING, INBOX_SECONDS = 10000, 32 * 1024 * 1024, 1000, 60
local UNRENEWED = 7.5  -- when nobody renews for so long, it is Redis that was away: that time does not count

local function text(number) return format('%.0f', number) end

local what, now, me = ARGV[1], tonumber(ARGV[2]), ARGV[4]
if not now then
  local time = call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local meta = call('HMGET', META, 'epoch', 'news', 'newsbytes', 'beat')
local epoch = meta[1]
if not epoch then
  epoch = ARGV[3]
  call('HSET', META, 'epoch', epoch, 'format', '1')
end
local news, newsbytes = tonumber(meta[2] or 0), tonumber(meta[3] or 0)

if what == 'news' then return {epoch, text(news)} end
if what == 'begin' then return {epoch, text(news), call('ZRANGE', LEASES, 0, -1)} end

if what == 'send' then  -- to whom, what
  if not call('ZSCORE', LEASES, ARGV[5]) then return {epoch, '0'} end
  local inbox = INBOX .. ARGV[5]
  call('XADD', inbox, 'MAXLEN', MOST_WAITING, '*', 'f', ARGV[6])
  call('EXPIRE', inbox, INBOX_SECONDS)
  return {epoch, '1'}
end

if what == 'claim' then  -- what, and the milliseconds after which it ends
  return {epoch, call('SET', CLAIM .. ARGV[5], me, 'NX', 'PX', ARGV[6]) and '1' or '0'}
end
if what == 'release' then
  if call('GET', CLAIM .. ARGV[5]) == me then call('DEL', CLAIM .. ARGV[5]) end
  return {epoch, '1'}
end

if what == 'alive' then  -- whom
  local ends = call('ZSCORE', LEASES, ARGV[5])
  return {epoch, ends and '1' or '0'}
end

local function tell(kind, who, line)
  news, newsbytes = news + 1, newsbytes + #line + 100
  call('XADD', NEWS, text(news) .. '-0', 'k', kind, 'p', who, 'f', line)
  local left = call('XLEN', NEWS)
  while left > 1 and (left > MOST_NEWS or newsbytes > NEWS_BYTES) do
    local oldest = call('XRANGE', NEWS, '-', '+', 'COUNT', 1)[1]
    call('XDEL', NEWS, oldest[1])
    left, newsbytes = left - 1, newsbytes - #oldest[2][6] - 100
  end
  call('HSET', META, 'news', text(news), 'newsbytes', text(newsbytes))
end
local function forget(who, kind)
  call('ZREM', LEASES, who)
  call('HDEL', META, 'lease:' .. who)
  call('UNLINK', HELD .. who, INBOX .. who)
  tell(kind, who, '')
end

if what == 'leave' then
  if call('ZSCORE', LEASES, me) then forget(me, 'left') end
  return {epoch, text(news)}
end

local lease = tonumber(ARGV[5])
local beat = tonumber(meta[4] or 0)
if beat > 0 and now - beat > UNRENEWED then
  for _, each in ipairs(call('ZRANGE', LEASES, 0, -1)) do call('ZINCRBY', LEASES, now - beat, each) end
end
call('HSET', META, 'beat', format('%.3f', now))
for _, each in ipairs(call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, 100)) do
  if each ~= me then forget(each, 'died') end
end

if what == 'register' then  -- the answer names the lease: another name than before says that the process was gone
  if not call('ZSCORE', LEASES, me) then call('HSET', META, 'lease:' .. me, text(news + 1)) end
  call('ZADD', LEASES, now + lease, me)
  call('UNLINK', HELD .. me)
  tell('registers', me, '')
  return {epoch, call('HGET', META, 'lease:' .. me)}
end
if not call('ZSCORE', LEASES, me) then
  return {epoch, 'lapsed'}
end
call('ZADD', LEASES, now + lease, me)
if ARGV[6] then  -- the news as JSON; then keys that are gone, behind their number; then keys and what is held there
  local gone = tonumber(ARGV[7])
  for place = 8, 7 + gone do call('HDEL', HELD .. me, ARGV[place]) end
  for place = 8 + gone, #ARGV, 2 do call('HSET', HELD .. me, ARGV[place], ARGV[place + 1]) end
  tell('holds', me, ARGV[6])
end
if what == 'registered' then tell('registered', me, '') end
return {epoch, text(news)}
