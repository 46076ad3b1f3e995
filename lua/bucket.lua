-- SPDX-License-Identifier: MIT
-- The common part of the scripts: reads the arguments, and the bucket at the current time. The algorithm is that of
-- src/core/bucket.c, in doubles. They are exact here, because no number reaches 2^53. A call into C and a new string cost
-- the server a measurable time. So the arguments come in one string, and the common case is tried first.

-- KEYS[1] is the bucket. ARGV[1] is "max_capacity drop_recharge amount". ARGV[2] is "drops block_duration"; it is absent
-- if drops is 1 and there is no block. All are decimal integers; times are in us.
local call, match = redis.call, string.match
local capacity, recharge, amount = match(ARGV[1] or '', '^(%d+) (%d+) (-?%d+)$')
local drops, block = 1, 0
if ARGV[2] then drops, block = match(ARGV[2], '^(%d+) (%d+)$') end
if #KEYS ~= 1 or ARGV[3] or not amount or not block then
  return redis.error_reply('ERR steady: the script needs one key, "capacity recharge amount" and optionally "drops block"')
end
capacity, recharge, amount, drops, block = capacity + 0, recharge + 0, amount + 0, drops + 0, block + 0
if capacity < 1 or capacity > 2147483647 or recharge < 1 or capacity * recharge >= 9007199254740992 or drops < 1
  or drops > 1000000 or block >= 4503599627370496 or amount > 2147483647 or amount < -2147483647 then
  return redis.error_reply('ERR steady: a number is out of range')
end

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local value = call('GET', KEYS[1])
local level, last, rem, blocked, stepped = 0, now, 0, 0, 0
local phase = 0 -- the time since the last leak, in 1/drops us

if value then
  -- "<level> <last> <blocked_until>[ <rem>]". A bucket without block and remainder takes the fast path. There the product
  -- of seconds below 2^32 and 10^6 is less than half a us off; adding and subtracting 2^52 rounds it.
  local l, s = match(value, '^(%d+) (%d+%.%d%d%d%d%d%d) 0$')
  if l then
    level, last = l + 0, s * 1000000 + 4503599627370496 - 4503599627370496
  end
  if not l or last >= 4294967296000000 then
    local us, bs, bus, r
    l, s, us, bs, bus, r = match(value, '^(%d+) (%d+)%.(%d%d%d%d%d%d) (%d+)(%.?%d*)( ?%d*)$')
    if not l or not (#bus == 7 or bus == '' and bs == '0') or r == ' ' then
      return redis.error_reply('NOTABUCKET the key holds something else')
    end
    level, last = l + 0, s * 1000000 + us
    blocked = bs * 1000000 + (bus == '' and 0 or string.sub(bus, 2))
    if r ~= '' and r + 0 < drops then rem = r + 0 end
  end
  if level >= 9007199254740992 or last >= 9007199254740992 or blocked >= 9007199254740992 then
    return redis.error_reply('NOTABUCKET the key holds something else')
  end

  if level > capacity and level * recharge >= 9007199254740992 then level = math.floor(9007199254740991 / recharge) end
  if last > now then -- the clock stepped back: shift the bucket by the same time
    if blocked > last - now then blocked = blocked - (last - now) else blocked = 0 end
    last, rem, stepped = now, 0, 2
  end
  if blocked <= now then blocked = 0 end

  local elapsed = now - last
  if level == 0 then
    last, rem = now, 0
  elseif drops == 1 then
    phase = elapsed
    if elapsed >= recharge then
      phase = elapsed % recharge
      level, last = level - (elapsed - phase) / recharge, now - phase
      if level <= 0 then level, last, phase = 0, now, 0 end
    end
  else
    -- A sum with a remainder may pass 2^53. So products are split into whole us and a remainder.
    local content = level * recharge
    local left = content % drops
    if elapsed >= (content - left) / drops + math.ceil((left + rem) / drops) then
      level, last, rem = 0, now, 0
    else
      phase = (elapsed - 1) * drops + (drops - rem)
      if phase >= recharge then
        local units = phase - phase % recharge
        level, phase = level - units / recharge, phase - units
        left = units % drops
        last, rem = last + (units - left) / drops, rem + left
        if rem >= drops then last, rem = last + 1, rem - drops end
      end
    end
  end
end
