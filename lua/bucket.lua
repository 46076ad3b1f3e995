-- SPDX-License-Identifier: MIT
-- The common part of the scripts for one bucket: reads the arguments, and the bucket at the current time. A call into C and
-- a new string cost the server a measurable time. So the arguments come in one string, and the common case is tried first.

-- KEYS[1] is the bucket. ARGV[1] is "max_capacity drop_recharge amount". ARGV[2] is "drops block_duration"; it is absent
-- if drops is 1 and there is no block. All are decimal integers; times are in us.
local ARGV, string, math, key = ARGV, string, math, KEYS[1] -- a local is found faster than a global
local call, match = redis.call, string.match
local capacity, recharge, amount = match(ARGV[1] or '', '^(%d+) (%d+) (-?%d+)$')
local drops, block, wrong = 1, 0, false
if ARGV[2] then
  drops, block = match(ARGV[2], '^(%d+) (%d+)$')
  if not block or ARGV[3] then
    amount = nil
  else
    drops, block = drops + 0, block + 0
    wrong = drops < 1 or drops > 1000000 or block >= 4503599627370496
  end
end
if #KEYS ~= 1 or not amount then
  return redis.error_reply('ERR steady: the script needs one key, "capacity recharge amount" and optionally "drops block"')
end
capacity, recharge, amount = capacity + 0, recharge + 0, amount + 0
if wrong or capacity < 1 or capacity > 2147483647 or recharge < 1 or capacity * recharge >= 9007199254740992
  or amount > 2147483647 or amount < -2147483647 then
  return redis.error_reply('ERR steady: a number is out of range')
end

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local value = call('GET', key)
--@include state.lua
