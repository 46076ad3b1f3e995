-- SPDX-License-Identifier: MIT
-- Puts the bucket number i into the reply, in full. The last bucket is the first.
if rare then
  reply[3 * i], reply[3 * i + 1], reply[3 * i + 2] = level, phase, blocked > 0 and blocked - now or 0
end
