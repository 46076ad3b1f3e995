-- SPDX-License-Identifier: MIT
-- The common part of consume_all.lua and peek_all.lua: the arguments of the call, and what is known about all parts. The
-- algorithm is that of src/core/parts.c.

-- KEYS[i] is the bucket of part i. ARGV[1] is "max_wait at_least"; at_least is 0 if it is not given. ARGV[i + 1] is
-- "max_capacity drop_recharge drops block_duration amount kind". All are decimal integers; times are in us.
--@include several.lua
local max_wait, at_least = 0, 0
if ARGV[1] ~= '0 0' then
  max_wait, at_least = match(ARGV[1] or '', '^(%d+) (%d+)$')
  max_wait, at_least = tonumber(max_wait), tonumber(at_least)
end
if #ARGV ~= n + 1 or not at_least then
  return redis.error_reply('ERR steady: the script needs "max_wait at_least" and an argument for each key')
end
if max_wait > 4503599627370496 or at_least > 2147483647 then
  return redis.error_reply('ERR steady: a number is out of range')
end

local TAKE, LOOK, CHARGE, SHADOW = '0', '1', '2', '3'
local allowed = true
local idle, blocks = true, false -- all amounts are 0; a part that would have a vote is blocked
local grant, whole = 2147483647  -- at_least: how many drops each part gets; the amount of all parts
