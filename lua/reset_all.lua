#!lua
-- SPDX-License-Identifier: MIT
-- Deletes several buckets, if each key holds a bucket or nothing. Sends how many there were. It takes no arguments.
local call, match, existed = redis.call, string.match, 0
if #KEYS < 1 or #KEYS > 64 or ARGV[1] then
  return redis.error_reply('ERR steady: the script needs 1 to 64 keys and no argument')
end
for i = 1, #KEYS do
  local value = call('GET', KEYS[i])
  if value then
    local level, last, rem, blocked, drops = 0, 0, 0, 0, 1
--@include parse.lua
    existed = existed + 1
  end
end
if existed > 0 then call('DEL', unpack(KEYS)) end
return existed
