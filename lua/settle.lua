#!lua
-- SPDX-License-Identifier: MIT
-- Corrects the buckets of a reservation when the true cost is known. The algorithm is that of src/core/parts.c. It writes
-- after the last read and the last check.

-- KEYS[i] is a bucket. ARGV[i] is "max_capacity drop_recharge drops reserved moment actual same_rate". `reserved` drops
-- were granted at `moment`, in us of this server's clock. same_rate is 0 if the rate has changed since then, otherwise 1.
--@include several.lua
if #ARGV ~= n then return redis.error_reply('ERR steady: the script needs an argument for each key') end
reply[1] = 1

local function settle(i)
  local capacity, recharge, drops, reserved, moment, actual, same_rate =
    match(ARGV[i], '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) ([01])$')
  if not same_rate then
    return redis.error_reply('ERR steady: a part needs "capacity recharge drops reserved moment actual same_rate"')
  end
  capacity, recharge, drops = capacity + 0, recharge + 0, drops + 0
  reserved, moment, actual = reserved + 0, moment + 0, actual + 0
  if capacity < 1 or capacity > 2147483647 or recharge < 1 or capacity * recharge >= 9007199254740992 or drops < 1
    or drops > 1000000 or reserved > 2147483647 or moment >= 9007199254740992 or actual > 2147483647 then
    return redis.error_reply('ERR steady: a number is out of range')
  end

  local value = call('GET', KEYS[i])
--@include state.lua
--@include content.lua
  if i < n then
    local failed = settle(i + 1)
    if failed then return failed end
  end
--@include rare.lua

  local top = math.min(2147483647, math.floor(9007199254740991 / recharge)) -- the highest level that can be counted
  local write = false
  if actual > reserved then
    local charged = math.min(actual - reserved, top - level)
    if charged > 0 then level, write = level + charged, true end
  elseif same_rate == '1' and level > 0 then
    -- Give back what has not leaked since then, in 1/drops us. A product over 2^53 is rounded, and still the larger.
    local all = math.min(reserved, top)
    local content = level * recharge - math.max(0, phase)
    local back = math.min((all - actual) * recharge, all * recharge - math.max(0, now - moment) * drops, content)
    if back > 0 then
      content, write = content - back, true
      level = math.ceil(content / recharge)
      phase = level * recharge - content
      local left = phase % drops
      last, rem = now - (phase - left) / drops, 0
      if left > 0 then last, rem = last - 1, drops - left end
      if level == 0 then
        last, rem = now, 0
      elseif last < 0 then -- the clock is younger than the phase
        last, rem, phase = 0, 0, now * drops
      end
    end
  end

  if write then
--@include store.lua
  end
end
return settle(1) or reply
