#!lua flags=no-writes
-- SPDX-License-Identifier: MIT
-- Tells whether one drop would fit. Takes the arguments of consume.lua, sends its reply, and writes nothing.
--@include bucket.lua
local success = blocked == 0 and level < capacity and 1 or 0
--@include report.lua
