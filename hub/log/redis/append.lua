-- Keeps the drafts of one call, or none: checks that the history is the one that was left here, gives positions, indexes,
-- and trims. One call is one step: nobody sees a part of it. What it may do is bounded by the number of its drafts.
--
-- The keys, all of one hub:
--   meta     hash    what is known of the whole: the epoch, the newest offset, counts; `ended` has the earlier epochs,
--                    each with how far it went, `strange` those of which nothing is left
--   log      stream  the notifications, `{offset}-0`: what every process follows. What was trimmed stays a while longer,
--                    for those that have not come so far; `{offset}-{n}` are notices that have no notification
--   dir      stream  per run of notifications that were kept by one call, one after the other: under the offset of the
--                    first one the time, and per notification `{size}{p or -}{topics}\0`, by which it is trimmed
--   places   zset    all scores 0: per notification and topic `{topic}\0{offset}`, in order
--   dead     list    what is no longer kept, but still in the log: `{id} {size}`, or `<{offset} {size}`, all up to there
--   gone     zset    per topic the newest offset that was trimmed
--   used     hash    idempotency keys, and what was published with each; `usedorder` is the list of them, oldest first
--   writers  hash    per process its last call, and what it was answered; `writerages` says when that was
local META, LOG, DIR, PLACES, DEAD, GONE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local USED, USEDORDER, WRITERS, WRITERAGES = KEYS[7], KEYS[8], KEYS[9], KEYS[10]

local call, sub, find, match, format = redis.call, string.sub, string.find, string.match, string.format
local FIRST_DRAFT, PER_DRAFT = 21, 4
local RUN = 32            -- notifications of a run: few, for one of them is found by counting
local CHUNK = 500         -- arguments of one command
local TRIMS = 1000        -- notifications that one call trims at least, if there are so many to trim
local EPOCHS = 100        -- that are remembered
local LATE = 600          -- seconds after which a call is not repeated
local WRITER_AGE = 3600   -- seconds that the last call of a process is remembered; more than LATE
local NOTICE_SIZE = 100
local LAST = 2^53 - 1     -- the greatest whole number that is exact here

-- Whole numbers are written as such, which is faster, where they have 64 bits.
local wide = format('%d', LAST) == '9007199254740991'
local WHOLE, PADDED = wide and '%d' or '%.0f', wide and '%016d' or '%016.0f'
local function text(number) return format(WHOLE, number) end
local function place(topic, offset) return topic .. '\0' .. format(PADDED, offset) end
local function many(command, key, items)
  local found = 0
  for first = 1, #items, CHUNK do
    found = found + call(command, key, unpack(items, first, math.min(first + CHUNK - 1, #items)))
  end
  return found
end
local function begins(topic) return '[' .. topic .. '\0', '(' .. topic .. '\1' end

local fenced, seen_epoch, seen, fresh = ARGV[1] == 'on', ARGV[2], tonumber(ARGV[3]), ARGV[4]
local max_count, max_size, max_age = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local writer, number, attempt, begun = ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local remembered, key_age, key_count, key_size = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16])
local spare_count, spare_size = tonumber(ARGV[17]), tonumber(ARGV[18])
local known_format, drafts = ARGV[19], tonumber(ARGV[20])

local time = call('TIME')
local real = tonumber(time[1]) + tonumber(time[2]) / 1e6
local now = tonumber(ARGV[5]) or real

-- ---- the fence: is this the history that the last call left? ----

local token
if fenced then
  local info = redis.pcall('INFO', 'replication')
  token = type(info) == 'string' and match(info, 'master_replid:(%x+)')
  if not token then return redis.error_reply('NOFENCE INFO replication is hidden') end
  if not find(info, 'role:master', 1, true) then return redis.error_reply('READONLY this server is a replica') end
end

local meta = call('HMGET', META, 'epoch', 'newest', 'notice', 'fence', 'kept', 'size', 'places', 'deadsize', 'trims',
  'overall', 'forgotten', 'usedsize', 'ended', 'oldest', 'format', 'dead', 'gone', 'runs', 'holes',
  'writers', 'doubtful')
local epoch, fence, ended = meta[1], meta[4], meta[13] or ''
token = token or fence or 'off'
local newest, notice, kept, size = tonumber(meta[2] or 0), tonumber(meta[3] or 0), tonumber(meta[5] or 0), tonumber(meta[6] or 0)
local places, deadsize, trims = tonumber(meta[7] or 0), tonumber(meta[8] or 0), tonumber(meta[9] or 0)
local overall, forgotten = tonumber(meta[10] or 0), tonumber(meta[11] or 0)
local usedsize, oldest, deadcount = tonumber(meta[12] or 0), tonumber(meta[14] or 0), tonumber(meta[16] or 0)
local gonecount = tonumber(meta[17] or 0)
local runs = tonumber(meta[18] or 0)
local holes = tonumber(meta[19] or 0)  -- notifications in a run that are no longer kept, though older ones may be
if epoch and meta[15] ~= known_format then
  return redis.error_reply('FORMAT ' .. tostring(meta[15]) .. ' is not ' .. known_format)
end

local writers = tonumber(meta[20]) or call('HLEN', WRITERS) -- of how many processes
local doubtful = tonumber(meta[21] or 0) -- when it was seen that the last calls of some were lost

local rewound = false
-- Does the caller know of something that an earlier epoch has lost, and that nobody has said yet? `overall` would not do:
-- that is what was trimmed of any topic, and says nothing of one by its name.
local late, strange = false, ''
if epoch and seen_epoch ~= epoch and seen_epoch ~= '' then
  local its_end = tonumber(match('\n' .. ended, '\n' .. seen_epoch .. ' (%d+)\n'))
  if its_end then
    late = seen > its_end and forgotten <= its_end
  else
    -- Its history never became a part of this one: a server is back that others had gone on without. All of it is lost.
    strange = call('HGET', META, 'strange') or ''
    late = seen > 0 and not find(strange, seen_epoch, 1, true)
  end
end
if not epoch or call('XLEN', DIR) ~= runs or call('ZCARD', PLACES) ~= places or call('XLEN', LOG) ~= kept + deadcount
  or call('ZCARD', GONE) ~= gonecount then
  -- Nothing was here, or a part of it was lost: nothing of the rest can be relied upon. What was given out is not given
  -- out again as far as anybody knows; everything up to there counts as trimmed.
  rewound = epoch and 'lost' or 'new'
  strange = (call('HGET', META, 'strange') or '') .. (epoch and epoch .. ' ' or '')
  call('DEL', LOG, DIR, PLACES, DEAD, GONE, USED, USEDORDER, WRITERS, WRITERAGES)
  newest = math.max(newest, seen)
  overall, forgotten, oldest = newest, newest, newest
  gonecount = 0
  kept, size, places, deadcount, deadsize, usedsize, notice, ended = 0, 0, 0, 0, 0, 0, 0, ''
  runs, holes, writers = 0, 0, 0
elseif fence ~= token or late or (seen_epoch == epoch and seen > newest) then
  -- Another server, or this one anew: it may lack the newest that others have seen. Each earlier epoch went no further
  -- than what has survived.
  rewound = 'rewound'
  local lines = {}
  for name, last in string.gmatch(ended, '(%S+) (%d+)\n') do
    lines[#lines + 1] = name .. ' ' .. text(math.min(tonumber(last), newest)) .. '\n'
  end
  lines[#lines + 1] = epoch .. ' ' .. text(newest) .. '\n'
  ended = table.concat(lines, '', math.max(1, #lines - EPOCHS + 1))
  if late or seen > newest then
    -- Something was lost. Nobody knows of which topics, so whoever goes on from before it may have missed it.
    if seen > newest then newest, notice = seen, 0 end
    overall, forgotten, gonecount = newest, newest, 0
    call('DEL', GONE)
    if kept == 0 then oldest = newest end
  end
end
if rewound then
  -- A write that needs no room, after which all the others are let through: who may only read is told the new epoch
  -- even where the memory is full.
  call('HDEL', META, '')
  if seen_epoch ~= '' and not find(ended, seen_epoch, 1, true) and not find(strange, seen_epoch, 1, true) then
    strange = strange .. seen_epoch .. ' '
  end
  if strange ~= '' then call('HSET', META, 'strange', sub(strange, -EPOCHS * (#fresh + 1))) end
  epoch, trims = fresh, trims + 1
end
local before = newest

-- ---- has this call been made before? ----

local verdict, answer = 'kept', ''
if drafts > 0 then
  if call('HLEN', WRITERS) ~= writers then doubtful = real end
  local last = call('HGET', WRITERS, writer)
  local done, what = match(last or '', '^(%d+) (.*)$')
  if done and tonumber(done) == number then
    verdict, answer = 'done', what
  elseif done and tonumber(done) > number then
    verdict = 'stale'
  elseif attempt > 1 and ((begun > 0 and real - begun > LATE) or (doubtful > 0 and begun <= doubtful)) then
    verdict = 'late'
  elseif newest + drafts > LAST then
    verdict = 'full'
  end
  if verdict ~= 'kept' then drafts = 0 end
end

-- ---- the drafts ----

local at, begin = format('%.6f', now), epoch .. ' ' .. format('%.6f', now) .. ' '
local repeats = {}
local waiting, run, run_first, run_length = {}, {}, 0, 0  -- places, and a run, that are not written yet
local lost, lost_order = {}, {}     -- what was trimmed for bounds of single topics
local thrown, thrown_order = {}, {} -- what was trimmed because the whole is full, or too old
local dying = {}
local trimmed = false

local function end_run()
  if run_length == 0 then return end
  call('XADD', DIR, text(run_first), 't', at, 'v', table.concat(run))
  run, run_length, runs = {}, 0, runs + 1
end
local function flush()
  end_run()
  if #waiting > 0 then
    places = places + many('ZADD', PLACES, waiting)
    waiting = {}
  end
end

local function die(number, sizes)
  kept, size, trimmed = kept - number, size - sizes, true
  deadcount, deadsize = deadcount + number, deadsize + sizes
end
-- Call *each* with every topic of *topics*, which are lines; most often it is one.
local function for_each(topics, each)
  if not find(topics, '\n', 1, true) then return each(topics) end
  for topic in string.gmatch(topics, '[^\n]+') do each(topic) end
end
-- What is kept has a place in one of its topics at least.
local function stands(topics, offset)
  for topic in string.gmatch(topics, '[^\n]+') do
    if call('ZSCORE', PLACES, place(topic, offset)) then return true end
  end
  return false
end
-- Return where in *lines*, a run, that is which *number* of them come before.
local function line_at(lines, number)
  local from = 1
  for _ = 1, number do from = (find(lines, '\0', from, true) or #lines) + 1 end
  return from
end

local function thin(topic, limit)
  local low, high = begins(topic)
  local over = call('ZLEXCOUNT', PLACES, low, high) - limit
  if over <= 0 then return end
  for _, member in ipairs(call('ZRANGEBYLEX', PLACES, low, high, 'LIMIT', 0, math.min(over, CHUNK))) do
    places = places - call('ZREM', PLACES, member)
    local offset = tonumber(sub(member, #topic + 2))
    lost[topic], trimmed = offset, true
    lost_order[#lost_order + 1] = topic
    -- It is removed when none of its topics keeps it.
    local entry = call('XREVRANGE', DIR, text(offset), '-', 'COUNT', 1)[1]
    local first, lines = tonumber(match(entry[1], '^%d+')), entry[2][4]
    local _, to, its_size, topics = find(lines, '^(%d+).([^%z]+)%z', line_at(lines, offset - first))
    if topics == topic or not stands(topics, offset) then
      if first == offset and to == #lines then
        runs = runs - call('XDEL', DIR, entry[1])
      else
        holes = holes + 1
      end
      dying[#dying + 1] = text(offset) .. '-0 ' .. its_size
      die(1, tonumber(its_size))
    end
  end
end

-- Forget keys that no longer count, *budget* of them at most.
local released, used_length = false, nil
local function forget_keys(budget)
  if usedsize == 0 then return end
  used_length = used_length or call('LLEN', USEDORDER)
  while budget > 0 do
    local line = call('LINDEX', USEDORDER, 0)
    if not line then break end
    local key, used, valid = match(line, '^(%S+) ((%S+) .*)$')
    if tonumber(valid) > now and used_length <= key_count and usedsize <= key_size then break end
    call('LPOP', USEDORDER)
    if call('HGET', USED, key) == used then call('HDEL', USED, key) end
    usedsize, used_length, budget, released = usedsize - #key - #used, used_length - 1, budget - 1, true
  end
end

local padded, last_topics, last_head, last_text
local function add_place(topic)
  local next = #waiting
  waiting[next + 1], waiting[next + 2] = '0', topic .. '\0' .. padded
end

for draft = 1, drafts do
  local first = FIRST_DRAFT + (draft - 1) * PER_DRAFT
  local topics, facts, its_size, key, limits = ARGV[first], ARGV[first + 1], ARGV[first + 3], '', ''
  if not tonumber(its_size) then its_size, key, limits = match(its_size, '^(%d+) (%S*) (.*)$') end
  local used = key ~= '' and call('HGET', USED, key)
  local valid, offset, where
  if used then valid, offset, where = match(used, '^(%S+) (%d+) (.*)$') end
  if valid and tonumber(valid) > now then
    repeats[#repeats + 1] = text(draft - 1) .. ' ' .. offset .. ' ' .. string.gsub(where, '\n', '\t')
  else
    -- The one before; the last one of all is written when it is known what to say with it.
    if padded then call('XADD', LOG, padded, 'h', last_head, 't', last_topics, 'd', last_text) end
    newest = newest + 1
    padded, last_topics, last_head, last_text = format(PADDED, newest), topics, begin .. facts, ARGV[first + 2]
    if kept == 0 then oldest = newest end
    kept, size = kept + 1, size + tonumber(its_size)
    -- What a bound of its topic may remove, soon and alone, is a run of its own.
    if run_length == RUN or limits ~= '' then end_run() end
    if run_length == 0 then run_first = newest end
    local next = #run
    run[next + 1], run[next + 2], run[next + 3], run[next + 4] = its_size, sub(facts, 2, 2), topics, '\0'
    run_length = run_length + 1
    for_each(topics, add_place)
    if limits ~= '' then
      flush()
      local topic_of = string.gmatch(topics, '[^\n]+')
      for limit in string.gmatch(limits, '%S+') do
        local topic = topic_of()
        if limit ~= '-' then thin(topic, tonumber(limit)) end
      end
    end
    if key ~= '' then
      local line = format('%.6f', now + key_age) .. ' ' .. text(newest) .. ' ' .. topics
      call('HSET', USED, key, line)
      call('RPUSH', USEDORDER, key .. ' ' .. line)
      usedsize, used_length = usedsize + #key + #line, used_length and used_length + 1
      forget_keys(2)
    end
  end
end
flush()

-- ---- retention of the whole ----

local function over(at)
  return kept > max_count or (size > max_size and kept > 1) or (max_age and kept > 0 and tonumber(at) < now - max_age)
end

local left, more = math.max(TRIMS, 2 * drafts), 0
local last, gone_at, thrown_size, members = 0, '', 0, {}
local function remove(topic)
  members[#members + 1] = topic .. '\0' .. gone_at
  thrown[topic] = last
  thrown_order[#thrown_order + 1] = topic
end
local looking = kept > 0 and (max_age or over(at))
while looking do
  local wanted = math.max(8, math.min(kept - max_count, left)) * runs / math.max(kept, 1)
  local entries, stays = call('XRANGE', DIR, '-', '+', 'COUNT', math.min(CHUNK, 1 + math.ceil(wanted))), nil
  for _, entry in ipairs(entries) do
    local first, its_time, lines = tonumber(match(entry[1], '^%d+')), entry[2][2], entry[2][4]
    if first > oldest then oldest = first end
    local from = line_at(lines, oldest - first)
    while from <= #lines do
      if not over(its_time) then stays = first break end
      if left == 0 then stays, more = first, 1 break end
      local _, to, its_size, topics = find(lines, '^(%d+).([^%z]+)%z', from)
      if holes == 0 or stands(topics, oldest) then
        last, gone_at, its_size = oldest, format(PADDED, oldest), tonumber(its_size)
        for_each(topics, remove)
        die(1, its_size)
        thrown_size = thrown_size + its_size
      else
        holes = holes - 1
      end
      oldest, from, left = oldest + 1, to + 1, left - 1
    end
    if stays then break end
  end
  if #members > 0 then
    places = places - many('ZREM', PLACES, members)
    members = {}
  end
  runs = runs - call('XTRIM', DIR, 'MINID', text(stays or oldest))
  looking = not stays and kept > 0
end
if last > 0 then
  overall = math.max(overall, last)
  dying[#dying + 1] = '<' .. text(last) .. ' ' .. thrown_size
end
if #dying > 0 then many('RPUSH', DEAD, dying) end
if kept == 0 then
  if runs > 0 then call('DEL', DIR) end
  oldest, runs, holes = newest, 0, 0
elseif #lost_order > 0 or holes > 0 then
  -- Holes at the beginning go, and with them the runs in which there is nothing else.
  local stays = false
  while not stays do
    local entry = call('XRANGE', DIR, '-', '+', 'COUNT', 1)[1]
    local first, lines = tonumber(match(entry[1], '^%d+')), entry[2][4]
    if first > oldest then oldest = first end
    local from = line_at(lines, oldest - first)
    while from <= #lines and not stays do
      local _, to, topics = find(lines, '^%d+.([^%z]+)%z', from)
      stays = holes == 0 or left == 0 or stands(topics, oldest)
      if not stays then oldest, from, holes, left = oldest + 1, to + 1, holes - 1, left - 1 end
    end
    if not stays then runs = runs - call('XDEL', DIR, entry[1]) end
  end
end

-- ---- what was trimmed is remembered, and told ----

local told = {}
local function tell(mark, offsets, order)
  local known, after, alike = {}, {}, true
  for number = #order, 1, -1 do
    local topic = order[number]
    local offset = offsets[topic]
    if offset then  -- its last time
      offsets[topic] = nil
      alike = alike and offset >= forgotten
      local written = text(offset)
      after[#after + 1] = mark .. written .. ' ' .. topic
      known[#known + 1], known[#known + 2] = written, topic
    end
  end
  for number = #after, 1, -1 do told[#told + 1] = after[number] end
  for first = 1, #known, CHUNK do
    local last = math.min(first + CHUNK - 1, #known)
    if not alike then  -- one that was forgotten may have lost something newer than this
      local new = {unpack(known, first, last)}
      for number = 1, #new, 2 do new[number] = text(math.max(tonumber(new[number]), forgotten)) end
      call('ZADD', GONE, 'NX', unpack(new))
    end
    call('ZADD', GONE, 'GT', unpack(known, first, last))
  end
end
if trimmed then
  tell('T', lost, lost_order)
  tell('O', thrown, thrown_order)
  trims = trims + 1
  gonecount = call('ZCARD', GONE)
  local excess = gonecount - remembered
  if excess > 0 then
    local popped = call('ZPOPMIN', GONE, math.min(excess, 2 * CHUNK))
    for number = 2, #popped, 2 do forgotten = math.max(forgotten, tonumber(popped[number])) end
    gonecount = gonecount - #popped / 2
  end
end

-- ---- the log itself, which all processes follow ----

local stands = {text(oldest), text(kept), text(size), text(trims)}
local notes = table.concat(stands, ' ') .. (#told > 0 and '\n' .. table.concat(told, '\n') or '')
if padded then
  call('XADD', LOG, padded, 'h', last_head, 't', last_topics, 'd', last_text, 'x', notes)
  notice = 0
elseif rewound or trimmed then
  notice = notice + 1
  local id = text(newest) .. '-' .. text(notice)
  call('XADD', LOG, id, 'h', epoch, 'x', notes)
  call('RPUSH', DEAD, id .. ' ' .. NOTICE_SIZE)
  deadcount, deadsize = deadcount + 1, deadsize + NOTICE_SIZE
end

-- What is no longer kept goes for good when there is enough of it.
-- What this call has added was not read by anybody yet.
local budget = 2 * (drafts + TRIMS)
while budget > 0 and (deadcount > spare_count or deadsize > spare_size) do
  local each = call('LINDEX', DEAD, 0)
  if not each then break end
  local whole, id, its_size = match(each, '^(<?)(%S+) (%d+)$')
  if tonumber(match(id, '^%d+')) > before then break end
  call('LPOP', DEAD)
  if whole == '<' then
    local found = call('XTRIM', LOG, 'MINID', text(tonumber(id) + 1))
    deadcount, budget = deadcount - found, budget - 10
  else
    deadcount, budget = deadcount - call('XDEL', LOG, id), budget - 1
  end
  deadsize, released = deadsize - tonumber(its_size), true
end

if drafts == 0 then forget_keys(100) end

local repeated = table.concat(repeats, '\n')
if drafts > 0 then
  call('HSET', WRITERS, writer, text(number) .. ' ' .. epoch .. ' ' .. text(before) .. ' ' .. repeated)
  call('ZADD', WRITERAGES, text(real), writer)
  local idle = call('ZRANGEBYSCORE', WRITERAGES, '-inf', text(real - WRITER_AGE), 'LIMIT', 0, 10)
  if #idle > 0 then
    call('HDEL', WRITERS, unpack(idle))
    call('ZREM', WRITERAGES, unpack(idle))
  end
end
if drafts > 0 or doubtful == real then writers = call('HLEN', WRITERS) end

-- The last write: were this call broken off before it, the counts would not agree, and the next one would see that.
-- One that was made before writes as well, so that to wait for replicas means something on this connection, too.
if drafts > 0 or verdict == 'done' or rewound or trimmed or released or doubtful == real or not fenced then
  call('HSET', META, 'epoch', epoch, 'newest', text(newest), 'notice', text(notice), 'fence', token, 'kept', text(kept),
    'size', text(size), 'places', text(places), 'deadsize', text(deadsize), 'trims', text(trims), 'overall', text(overall),
    'forgotten', text(forgotten), 'usedsize', text(usedsize), 'ended', ended, 'oldest', text(oldest),
    'format', known_format, 'dead', text(deadcount), 'gone', text(gonecount), 'runs', text(runs), 'holes', text(holes),
    'writers', text(writers), 'doubtful', format('%.6f', doubtful))
end
local present = epoch
if verdict == 'done' then
  epoch, before, repeated = match(answer, '^(%S+) (%d+) (.*)$')
else
  before = text(before)
end
return {verdict, epoch, before, text(newest), text(trims), text(real), more, repeated, ended, present}
