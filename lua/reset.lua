#!lua
-- SPDX-License-Identifier: MIT
-- Forgets a bucket: the arguments of consume.lua, and the reply for an empty bucket.
--@include bucket.lua
if value then call('DEL', KEYS[1]) end
return 0
