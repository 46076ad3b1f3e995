-- SPDX-License-Identifier: MIT
-- Reads the stored text of a bucket, or ends the script with an error.
-- "<level> <last> <blocked_until>[ <rem>]". A bucket without block and remainder takes the fast path. There the product
-- of seconds below 2^32 and 10^6 is less than half a us off; adding and subtracting 2^52 rounds it.
local l, s = match(value, '^(%d+) (%d+%.%d%d%d%d%d%d) 0$')
if l then
  level, last = l + 0, s * 1000000 + 4503599627370496 - 4503599627370496
end
if not l or last >= 4294967296000000 or level >= 9007199254740992 then
  local us, bs, bus, r
  l, s, us, bs, bus, r = match(value, '^(%d+) (%d+)%.(%d%d%d%d%d%d) (%d+)(%.?%d*)( ?%d*)$')
  if not l or not (#bus == 7 or bus == '' and bs == '0') or r == ' ' then
    return redis.error_reply('NOTABUCKET the key holds something else')
  end
  level, last = l + 0, s * 1000000 + us
  blocked = bs * 1000000 + (bus == '' and 0 or string.sub(bus, 2))
  if r ~= '' and r + 0 < drops then rem = r + 0 end
  if level >= 9007199254740992 or last >= 9007199254740992 or blocked >= 9007199254740992 then
    return redis.error_reply('NOTABUCKET the key holds something else')
  end
end
