-- SPDX-License-Identifier: MIT
-- Part i of a call: its arguments, its bucket at the current time, and its vote.
local packed, capacity, recharge, amount, drops, block, kind, wrong = ARGV[i + 1], nil, nil, nil, 1, 0, 0, false
if #packed == 16 then
  capacity, recharge, amount = unpack('<i4di4', packed)
elseif #packed == 29 then
  capacity, recharge, amount, drops, block, kind = unpack('<i4di4i4dB', packed)
  wrong = drops < 1 or drops > 1000000 or not (block >= 0 and block % 1 == 0 and block < 4503599627370496) or kind > 3
    or kind > 0 and amount < 0
else
  return redis.error_reply('ERR steady: a part needs a packed argument of 16 or 29 bytes')
end
if wrong or capacity < 1 or not (recharge >= 1) or recharge % 1 > 0 or capacity * recharge >= 9007199254740992
  or amount < -2147483647 then
  return redis.error_reply('ERR steady: a number is out of range')
end

local value = call('GET', KEYS[i])
--@include state.lua
--@include content.lua

local asked, allows = amount, true
if at_least then
  if kind ~= 0 or at_least > amount then
    return redis.error_reply('ERR steady: at_least needs kind 0, and is at most the amount')
  end
  asked, grant = at_least, math.min(grant, amount, capacity - level)
end
if amount ~= 0 then idle = false end
if asked > 0 and kind ~= 2 then
  -- If level + asked is over 2^53, it may be rounded. Then it is far above the capacity and 2^31 all the same.
  local surplus = level + asked - capacity
  if blocked > 0 then
    allows = false
  elseif surplus > 0 then
    allows = false
    if max_wait > 0 and level + asked <= 2147483647 and (level + asked) * recharge < 9007199254740992 then
      -- The product is at least 2^22 below 2^53, and the phase is above -10^6. So their difference is exact.
      allows = math.ceil((surplus * recharge - phase) / drops) <= max_wait
    end
  end
  if not allows and kind ~= 3 then allowed = false end
elseif blocked > 0 and kind < 2 then
  blocked_vote = true
end
