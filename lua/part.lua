-- SPDX-License-Identifier: MIT
-- Part i of a call: its arguments, its bucket at the current time, and its vote. Then the parts after it. After the last
-- one the verdict is known.
local capacity, recharge, drops, block, amount, kind = match(ARGV[i + 1], '^(%d+) (%d+) (%d+) (%d+) (-?%d+) ([0-3])$')
if not kind then
  return redis.error_reply('ERR steady: a part needs "capacity recharge drops block amount kind"')
end
capacity, recharge, drops, block, amount = capacity + 0, recharge + 0, drops + 0, block + 0, amount + 0
if capacity < 1 or capacity > 2147483647 or recharge < 1 or capacity * recharge >= 9007199254740992 or drops < 1
  or drops > 1000000 or block >= 4503599627370496 or amount > 2147483647
  or amount < 0 and (kind ~= TAKE or amount < -2147483647) then
  return redis.error_reply('ERR steady: a number is out of range')
end

local value = call('GET', KEYS[i])
--@include state.lua
--@include content.lua

local asked, allows = amount, true
if at_least > 0 then
  if kind ~= TAKE or at_least > amount or amount ~= (whole or amount) then
    return redis.error_reply('ERR steady: at_least needs parts of kind take and one amount')
  end
  asked, whole = at_least, amount
  grant = math.min(grant, amount, capacity - level)
end
if amount ~= 0 then idle = false end
if asked > 0 and kind ~= CHARGE then
  -- A level + asked over 2^53 may be rounded. Then it is far above the capacity and 2^31 all the same.
  local surplus = level + asked - capacity
  if blocked > 0 then
    allows = false
  elseif surplus > 0 then
    allows = false
    if max_wait > 0 and level + asked <= 2147483647 and (level + asked) * recharge < 9007199254740992 then
      local units = surplus * recharge
      local left = units % drops
      allows = (units - left) / drops + math.ceil((left - phase) / drops) <= max_wait
    end
  end
  if not allows and kind ~= SHADOW then allowed = false end
elseif blocked > 0 and (kind == TAKE or kind == LOOK) then
  blocks = true
end

if i < n then
  local failed = decide(i + 1)
  if failed then return failed end
else
  if idle then allowed = not blocks end
  if grant < at_least then grant = at_least end
  if allowed then reply[1] = reply[1] + 1 end
end
--@include rare.lua
