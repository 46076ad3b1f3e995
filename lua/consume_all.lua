#!lua
-- SPDX-License-Identifier: MIT
-- Puts drops into several buckets: into all, or into none. It writes after the last read and the last check. So after any
-- error reply nothing was charged.
--@include parts.lua

local function decide(i)
--@include part.lua

  if kind == LOOK or amount == 0 then return end
  local write = stepped > 0
  if allowed then
    local granted = at_least > 0 and grant or amount
    if kind == CHARGE then
      local top = math.min(2147483647, math.floor(9007199254740991 / recharge)) -- the highest level that can be counted
      granted = math.min(amount, math.max(0, top - level))
    elseif not allows then
      granted = 0
    end
    if granted ~= 0 then
      level, write = level + granted, true
      if level <= 0 then level, last, rem, phase = 0, now, 0, 0 end
    end
  end
  if not allows and max_wait == 0 and block > 0 and blocked == 0 and asked <= capacity then
    blocked, write = now + block, true
  end

  if write then
--@include busy.lua
    if busy > 0 then
--@include text.lua
      call('SET', KEYS[i], text, 'PX', math.ceil(busy / 1000))
    elseif value then
      call('DEL', KEYS[i])
    end
  end
end
return decide(1) or reply
