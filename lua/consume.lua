#!lua
-- SPDX-License-Identifier: MIT
-- Puts drops into a bucket, or takes them out. It writes at most once, at the end. So after any error reply nothing was
-- charged.
--@include bucket.lua

local success, write = 0, stepped > 0
if amount < 0 or blocked == 0 and (amount == 0 or level + amount <= capacity) then
  success, write = 1, true
  level = level + amount
  if level <= 0 then level, last, rem, phase = 0, now, 0, 0 end
elseif blocked == 0 and block > 0 and amount <= capacity then
  blocked, write = now + block, true
end

if write and amount ~= 0 then
--@include busy.lua
  if busy > 0 then
--@include text.lua
    call('SET', key, text, 'PX', string.format('%d', math.ceil(busy / 1000))) -- a string costs less than a number
  elseif value then
    call('DEL', key)
  end
end
--@include report.lua
