#!lua
-- SPDX-License-Identifier: MIT
-- Deletes a bucket. Takes the arguments of consume.lua, and sends the reply for an empty bucket.
--@include bucket.lua
if value then call('DEL', key) end
return 0
