-- SPDX-License-Identifier: MIT
-- The bucket as a text to store.
local us, text = last % 1000000, nil
if blocked == 0 and rem == 0 then
  text = string.format('%d %d.%06d 0', level, (last - us) / 1000000, us)
else
  text = string.format('%d %d.%06d %s%s', level, (last - us) / 1000000, us,
    blocked == 0 and '0' or string.format('%d.%06d', (blocked - blocked % 1000000) / 1000000, blocked % 1000000),
    rem == 0 and '' or ' ' .. rem)
end
