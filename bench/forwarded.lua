-- SPDX-License-Identifier: MIT
-- A script of wrk: each request has X-Forwarded-For with one of 100,000 IPv6 addresses, each of another customer.
local requests, at = {}, 0

init = function()
    for i = 0, 99999 do
        local client = string.format("2001:db8:%x:%x:8a2e:370:7334:%x", i / 4096, i % 4096, i % 65521)
        requests[i] = wrk.format("GET", "/", {["X-Forwarded-For"] = client})
    end
end

request = function()
    at = (at + 1) % 100000
    return requests[at]
end
