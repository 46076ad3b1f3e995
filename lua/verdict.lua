-- SPDX-License-Identifier: MIT
-- After the last part: the verdict, and with at_least the grant.
if idle then allowed = not blocked_vote end
if at_least and grant < at_least then grant = at_least end
if allowed then reply[1] = reply[1] + 1 end
