-- SPDX-License-Identifier: MIT
-- The common part of the scripts for one bucket: reads the argument, and the bucket at the current time. A call into C and
-- a new string cost the server a measurable time. So the argument is packed, and the common case is tried first.

-- KEYS[1] is the bucket. ARGV[1] is packed, little-endian. It has 16 bytes:
--   max_capacity  i4
--   drop_recharge d     a whole number of us
--   amount        i4
-- If drops is not 1, or there is a block, 12 more bytes follow:
--   drops          i4
--   block_duration d    a whole number of us
local ARGV, string, math, key = ARGV, string, math, KEYS[1] -- a local is found faster than a global
local call, match, unpack = redis.call, string.match, struct.unpack
local packed, capacity, recharge, amount, drops, block = ARGV[1] or '', nil, nil, nil, 1, 0
if #packed == 16 then
  capacity, recharge, amount = unpack('<i4di4', packed)
elseif #packed == 28 then
  capacity, recharge, amount, drops, block = unpack('<i4di4i4d', packed)
end
if #KEYS ~= 1 or #ARGV ~= 1 or not amount then
  return redis.error_reply('ERR steady: the script needs one key, and one packed argument of 16 or 28 bytes')
end
if capacity < 1 or not (recharge >= 1) or recharge % 1 > 0 or capacity * recharge >= 9007199254740992
  or amount < -2147483647 or block ~= 0 and not (block > 0 and block % 1 == 0 and block < 4503599627370496)
  or drops ~= 1 and (drops < 1 or drops > 1000000) then
  return redis.error_reply('ERR steady: a number is out of range')
end

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local value = call('GET', key)
--@include state.lua
