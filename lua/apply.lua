-- SPDX-License-Identifier: MIT
-- Does with part i what the verdict says.
--@include rare.lua
if kind ~= 1 and amount ~= 0 then
  local write = stepped > 0
  if allowed then
    local granted = at_least and grant or amount
    if kind == 2 then
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
--@include store.lua
  end
end
