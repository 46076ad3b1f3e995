#!lua
-- SPDX-License-Identifier: MIT
-- Deletes a bucket. Takes the arguments of consume.lua, and sends the reply for an empty bucket.
--@include bucket.lua
if value then call('DEL', KEYS[1]) end
return 0
