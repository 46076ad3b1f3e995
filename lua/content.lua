-- SPDX-License-Identifier: MIT
-- Puts the bucket number i into the reply.
reply[i + 2] = level * recharge - phase
if blocked > 0 or stepped > 0 or phase < 0 then
  rare, reply[1] = true, reply[1] + stepped
end
