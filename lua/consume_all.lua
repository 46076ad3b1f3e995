#!lua
-- SPDX-License-Identifier: MIT
-- Puts drops into several buckets: into all, or into none. It writes after the last read and the last check. So after any
-- error reply nothing was charged.
--
-- Making a function that uses locals from outside costs as much as half a bucket. So two buckets get by without.
--@include parts.lua

local i = 1
--@include part.lua
if n == 1 then
--@include verdict.lua
else
  local i = 2
--@include part.lua
  if n == 2 then
--@include verdict.lua
  else
    local function decide(i)
--@include part.lua
      if i == n then
--@include verdict.lua
      else
        local failed = decide(i + 1)
        if failed then return failed end
      end
--@include apply.lua
    end
    local failed = decide(3)
    if failed then return failed end
  end
--@include apply.lua
end
--@include apply.lua
return reply
