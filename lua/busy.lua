-- SPDX-License-Identifier: MIT
-- How long the bucket has a meaning: its time to live.
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
