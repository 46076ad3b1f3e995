-- SPDX-License-Identifier: MIT
-- The common part of the scripts for several buckets: the time, and the reply. All buckets are read before the first is
-- written. Meanwhile the bucket of each part is in the locals of a block or of a function of its own, because tables cost
-- the server more. The parts are then written in the reverse order.
local KEYS, ARGV, string, math = KEYS, ARGV, string, math -- a local is found faster than a global
local call, match, n = redis.call, string.match, #KEYS
if n < 1 or n > 64 then return redis.error_reply('ERR steady: the script needs 1 to 64 keys') end
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

-- {success + 2 * stepped, now, c1, ..., cn}. `stepped` is how many buckets were ahead of the clock. ci is the content of a
-- bucket before the call: level * drop_recharge - phase. If any bucket is blocked or was ahead of the clock, or has a phase
-- below zero, the reply is {success + 2 * stepped, now, level1, phase1, blocked_for1, level2, ...}.
local reply, rare = {0, now, nil, nil}, false -- nil: room for two
