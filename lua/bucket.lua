-- SPDX-License-Identifier: MIT
-- The common part of the scripts for one bucket: reads the arguments, and the bucket at the current time. A call into C and
-- a new string cost the server a measurable time. So the arguments come in one string, and the common case is tried first.

-- KEYS[1] is the bucket. ARGV[1] is "max_capacity drop_recharge amount". ARGV[2] is "drops block_duration"; it is absent
-- if drops is 1 and there is no block. All are decimal integers; times are in us.
local call, match = redis.call, string.match
local capacity, recharge, amount = match(ARGV[1] or '', '^(%d+) (%d+) (-?%d+)$')
local drops, block = 1, 0
if ARGV[2] then drops, block = match(ARGV[2], '^(%d+) (%d+)$') end
if #KEYS ~= 1 or ARGV[3] or not amount or not block then
  return redis.error_reply('ERR steady: the script needs one key, "capacity recharge amount" and optionally "drops block"')
end
capacity, recharge, amount, drops, block = capacity + 0, recharge + 0, amount + 0, drops + 0, block + 0
if capacity < 1 or capacity > 2147483647 or recharge < 1 or capacity * recharge >= 9007199254740992 or drops < 1
  or drops > 1000000 or block >= 4503599627370496 or amount > 2147483647 or amount < -2147483647 then
  return redis.error_reply('ERR steady: a number is out of range')
end

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local value = call('GET', KEYS[1])
--@include state.lua
