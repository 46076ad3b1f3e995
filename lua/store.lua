-- SPDX-License-Identifier: MIT
-- Writes the bucket number i, or deletes it if it is empty and not blocked.
--@include busy.lua
if busy > 0 then
--@include text.lua
  call('SET', KEYS[i], text, 'PX', string.format('%d', math.ceil(busy / 1000))) -- a string costs less than a number
elseif value then
  call('DEL', KEYS[i])
end
