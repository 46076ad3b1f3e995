#!lua flags=no-writes
-- SPDX-License-Identifier: MIT
-- Tells what consume_all.lua would answer. Takes its arguments, sends its reply, and writes nothing.
--@include parts.lua

local function decide(i)
--@include part.lua
  if i == n then
--@include verdict.lua
  else
    local failed = decide(i + 1)
    if failed then return failed end
  end
--@include rare.lua
end
return decide(1) or reply
