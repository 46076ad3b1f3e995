#!lua
-- SPDX-License-Identifier: MIT
-- Puts drops into a bucket, or takes them out. It writes at most once, at the end. So after any error reply nothing was
-- charged.
--@include bucket.lua

local success, write = 0, stepped > 0
if amount < 0 or blocked == 0 and (amount == 0 or level + amount <= capacity) then
  success, write = 1, true
  level = level + amount
  if level <= 0 then level, last, rem, phase = 0, now, 0, 0 end
elseif blocked == 0 and block > 0 and amount <= capacity then
  blocked, write = now + block, true
end

if write and amount ~= 0 then
  local busy = 0 -- us until the bucket is empty and not blocked
  if level > 0 then
    busy = level * recharge
    if drops == 1 then
      busy = busy - phase
    else
      local left = busy % drops
      busy = (busy - left) / drops + math.ceil((left - phase) / drops)
    end
  end
  if blocked > now + busy then busy = blocked - now end
  if busy > 0 then
    local us, text = last % 1000000, nil
    if blocked == 0 and rem == 0 then
      text = string.format('%d %d.%06d 0', level, (last - us) / 1000000, us)
    else
      text = string.format('%d %d.%06d %s%s', level, (last - us) / 1000000, us,
        blocked == 0 and '0' or string.format('%d.%06d', (blocked - blocked % 1000000) / 1000000, blocked % 1000000),
        rem == 0 and '' or ' ' .. rem)
    end
    call('SET', KEYS[1], text, 'PX', math.ceil(busy / 1000))
  elseif value then
    call('DEL', KEYS[1])
  end
end
--@include report.lua
