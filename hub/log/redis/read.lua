-- Reads; changes nothing. One call sees one state of the history, and does a bounded amount of work.
--
-- The first argument says what is read, the second one the epoch that the caller knows: of another one, nothing is.
local META, LOG, DIR, PLACES, GONE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local call, sub, find, match, format = redis.call, string.sub, string.find, string.match, string.format
local FIRST = 3

local function text(number) return format('%.0f', number) end
local function place(topic, offset) return topic .. '\0' .. format('%016.0f', offset) end
local function offset_of(topic, member) return tonumber(sub(member, #topic + 2)) end

local what = ARGV[1]
local meta = call('HMGET', META, 'epoch', 'trims', 'oldest', 'newest', 'notice', 'kept', 'size', 'overall', 'forgotten', 'ended', 'runs', 'holes')
if meta[1] ~= ARGV[2] then return {'epoch'} end
local answer = {'read', meta[2], meta[3]}

local oldest, kept = tonumber(meta[3]), tonumber(meta[6])
local runs, holes = tonumber(meta[11]), tonumber(meta[12])

-- Return what stands at *offset* in the log; it is kept.
local function row(offset)
  local id = text(offset) .. '-0'
  local entry = call('XRANGE', LOG, id, id)[1]
  return entry and entry[2]
end

-- What is kept has a place in one of its topics at least.
local function stands(topics, offset)
  for topic in string.gmatch(topics, '[^\n]+') do
    if call('ZSCORE', PLACES, place(topic, offset)) then return true end
  end
  return false
end

-- Call *each* with offset and topics of what is kept after *after*, in order, *steps* of it at most; return how far it came.
local function walk(after, upto, steps, each)
  local begin = call('XREVRANGE', DIR, text(after + 1), '-', 'COUNT', 1)[1]
  local from = begin and begin[1] or '-'
  while true do
    local entries = call('XRANGE', DIR, from, text(upto), 'COUNT', 1 + math.ceil(steps * runs / math.max(kept, 1)))
    for _, entry in ipairs(entries) do
      local offset = tonumber(match(entry[1], '^%d+'))
      for topics in string.gmatch(entry[2][4], '%d+.([^%z]+)%z') do
        if offset > upto then return upto end
        if offset > after and offset >= oldest and (holes == 0 or stands(topics, offset)) then
          each(offset, topics)
          steps = steps - 1
          if steps == 0 then return offset end
        end
        offset = offset + 1
      end
      from = '(' .. entry[1]
    end
    if #entries == 0 then return upto end
  end
end

-- Add to the answer what stands at *offsets*, in order, as much as makes a page; then how far that reaches.
local function page(offsets, upto, max_count, max_bytes)
  local rows, bytes, last = {}, 0, 0
  for _, offset in ipairs(offsets) do
    local found = row(offset)
    if found then
      bytes = bytes + #found[4] + #found[6]
      if #rows > 0 and (#rows == max_count or bytes > max_bytes) then
        upto = last
        break
      end
      rows[#rows + 1] = {text(offset), found[2], found[4], found[6]}
    end
    last = offset
  end
  answer[4], answer[5] = text(upto), rows
  return answer
end

if what == 'state' then  -- everything that a process has to know at its beginning
  for number = 4, 10 do answer[number] = meta[number] end
  answer[11] = call('ZRANGE', GONE, 0, -1, 'WITHSCORES')
  return answer
end

if what == 'names' then  -- of each range the topics in it: their number at most, then low and high of each range
  local left, names = tonumber(ARGV[FIRST]), {}
  for first = FIRST + 1, #ARGV, 2 do
    local low = ARGV[first] == '' and '-' or '[' .. ARGV[first]
    local high = ARGV[first + 1] == '' and '+' or '(' .. ARGV[first + 1]
    local found = {}
    while true do
      local member = call('ZRANGEBYLEX', PLACES, low, high, 'LIMIT', 0, 1)[1]
      if not member then break end
      if left == 0 then return {'many', meta[2], meta[3], meta[4]} end
      local name = match(member, '^%Z+')
      found[#found + 1] = name
      low, left = '[' .. name .. '\1', left - 1
    end
    names[#names + 1] = found
  end
  answer[4], answer[5] = meta[4], names
  return answer
end

if what == 'topics' then  -- a page of topics: upto, bounds of the page, places per topic; then names and where they begin
  local upto, max_count, max_bytes = tonumber(ARGV[FIRST]), tonumber(ARGV[FIRST + 1]), tonumber(ARGV[FIRST + 2])
  local per, seen, offsets, reach = tonumber(ARGV[FIRST + 3]), {}, {}, upto
  for first = FIRST + 4, #ARGV, 2 do
    local name, low, high = ARGV[first], '(' .. place(ARGV[first], tonumber(ARGV[first + 1])), '[' .. place(ARGV[first], upto)
    local found = call('ZRANGEBYLEX', PLACES, low, high, 'LIMIT', 0, per)
    for _, member in ipairs(found) do
      local offset = offset_of(name, member)
      if not seen[offset] then
        seen[offset] = true
        offsets[#offsets + 1] = offset
      end
    end
    if #found == per then reach = math.min(reach, offset_of(name, found[per])) end
  end
  table.sort(offsets)
  while offsets[#offsets] and offsets[#offsets] > reach do offsets[#offsets] = nil end
  return page(offsets, reach, max_count, max_bytes)
end

if what == 'walk' or what == 'all' then
  -- after, upto, how many are looked at; for `all` the bounds of a page and the first segments that do not count.
  local after, upto, steps = tonumber(ARGV[FIRST]), tonumber(ARGV[FIRST + 1]), tonumber(ARGV[FIRST + 2])
  if what == 'walk' then
    local rows = {}
    answer[4] = text(walk(after, upto, steps, function(offset, topics) rows[#rows + 1] = {text(offset), topics} end))
    answer[5] = rows
    return answer
  end
  local but, offsets = {}, {}
  for number = FIRST + 5, #ARGV do but[ARGV[number]] = true end
  local last = walk(after, upto, steps, function(offset, topics)
    local alone = not find(topics, '\n', 1, true)
    for topic in string.gmatch(topics, '[^\n]+') do
      -- One of several topics may have lost it.
      if not but[match(topic, '^[^/]*')] and (alone or call('ZSCORE', PLACES, place(topic, offset))) then
        offsets[#offsets + 1] = offset
        break
      end
    end
  end)
  return page(offsets, last, tonumber(ARGV[FIRST + 3]), tonumber(ARGV[FIRST + 4]))
end

if what == 'rows' then  -- upto, bounds of a page; then offsets, each with the number of topics one of which has to have it, and those
  local upto, max_count, max_bytes = tonumber(ARGV[FIRST]), tonumber(ARGV[FIRST + 1]), tonumber(ARGV[FIRST + 2])
  local offsets, first = {}, FIRST + 3
  while first <= #ARGV do
    local offset, number = tonumber(ARGV[first]), tonumber(ARGV[first + 1])
    local stands = false
    for topic = first + 2, first + 1 + number do
      stands = stands or call('ZSCORE', PLACES, place(ARGV[topic], offset))
    end
    if stands then offsets[#offsets + 1] = offset end
    first = first + 2 + number
  end
  return page(offsets, upto, max_count, max_bytes)
end

if what == 'back' then  -- places per topic, whether it is asked which are private; then names, an offset, and a floor: what stands up to the one and beyond the other
  local per, asked, found = tonumber(ARGV[FIRST]), ARGV[FIRST + 1] == '1', {}
  for first = FIRST + 2, #ARGV, 3 do
    local name = ARGV[first]
    local high, low = '[' .. place(name, tonumber(ARGV[first + 1])), '(' .. place(name, tonumber(ARGV[first + 2]))
    local places = {}
    for _, member in ipairs(call('ZREVRANGEBYLEX', PLACES, high, low, 'LIMIT', 0, per)) do
      local offset = offset_of(name, member)
      local private, topics = '', ''
      if asked then
        local entry = call('XREVRANGE', DIR, text(offset), '-', 'COUNT', 1)[1]
        local from, lines = 1, entry[2][4]
        for _ = 1, offset - tonumber(match(entry[1], '^%d+')) do from = find(lines, '\0', from, true) + 1 end
        private, topics = match(lines, '^%d+(.)([^%z]+)', from)
      end
      places[#places + 1] = {text(offset), private, private == 'p' and topics or ''}
    end
    found[#found + 1] = places
  end
  answer[4] = found
  return answer
end
return redis.error_reply('ERR nothing is called ' .. what)
