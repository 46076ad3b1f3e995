#!lua flags=no-writes
-- SPDX-License-Identifier: MIT
-- What a consume of one drop would find: the arguments and the reply of consume.lua, and nothing is written.
--@include bucket.lua
local success = blocked == 0 and level < capacity and 1 or 0
--@include report.lua
