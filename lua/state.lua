-- SPDX-License-Identifier: MIT
-- The bucket at the current time, from the text that is stored. The algorithm is that of src/core/bucket.c, in doubles.
-- They are exact here, because no number reaches 2^53. `value` is what GET returned; the others are arguments.
local level, last, rem, blocked, stepped = 0, now, 0, 0, 0
local phase = 0 -- the time since the last leak, in 1/drops us

if value then
--@include parse.lua
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
