-- SPDX-License-Identifier: MIT
-- Sends the reply: content, the time until the bucket is empty in 1/drops us; -1 - content if success is 0. The client
-- computes level and waits from it and the limit. An integer is much cheaper for the server than an array. Only rare cases
-- get an array {success + 2 * stepped, level, phase, blocked_for}: blocked, a clock step, or a phase below zero.
if blocked > 0 or stepped > 0 or phase < 0 then
  return {success + stepped, level, phase, blocked > 0 and blocked - now or 0}
end
if success == 1 then return level * recharge - phase end
return phase - level * recharge - 1
