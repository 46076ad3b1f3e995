-- SPDX-License-Identifier: MIT
-- The common part of consume_all.lua and peek_all.lua: the arguments of the call. The algorithm is that of
-- src/core/parts.c.

-- KEYS[i] is the bucket of part i. ARGV[1] is "max_wait at_least", decimal integers; at_least is 0 if it is not given.
-- ARGV[i + 1] is packed as the argument of bucket.lua. A part of another kind than take, or with drops or a block, has 29
-- bytes: after the block its kind follows, a byte. The kinds are 0 take, 1 look, 2 charge, 3 shadow.
--@include several.lua
local unpack, max_wait, at_least = struct.unpack, 0, nil
if ARGV[1] ~= '0 0' then
  max_wait, at_least = match(ARGV[1] or '', '^(%d+) (%d+)$')
  max_wait, at_least = tonumber(max_wait), tonumber(at_least)
  if not at_least or max_wait > 4503599627370496 or at_least > 2147483647 then
    return redis.error_reply('ERR steady: the script needs "max_wait at_least", in range')
  end
  if at_least == 0 then at_least = nil end
end
if #ARGV ~= n + 1 then return redis.error_reply('ERR steady: the script needs an argument for each key') end

local allowed, idle, blocked_vote = true, true, false -- idle: all amounts are 0. A part that would have a vote is blocked.
local grant = 2147483647                              -- with at_least: the drops that fit into all buckets now
